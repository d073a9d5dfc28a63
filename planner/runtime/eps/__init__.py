"""One folder or module for each EP whose start takes more than a few lines."""
