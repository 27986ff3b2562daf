"""Models that several stages use: where they are, what they are, the device that they run on."""
