"""What there is, to look at: images and captions, changes since the last run, the report, comparisons."""
