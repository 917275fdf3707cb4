"""The config file: read, checked, and turned into the values that the other parts take."""
