"""The what-if drawer: other settings asked of every recorded step."""
