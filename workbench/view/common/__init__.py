"""What several pages share: store, markup, page frame, glossary, form fields, probes."""
