"""Image files: their formats, headers and pixels."""
