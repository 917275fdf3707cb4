"""The config file: read it, check it, and turn it into the values that the other parts need."""
