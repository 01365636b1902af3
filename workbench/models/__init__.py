"""Who answers: models, their tokenizers and templates."""
