"""What is run: a scenario, a suite of them, the file of a suite, and the presets of protocols."""
