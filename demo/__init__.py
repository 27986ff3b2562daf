"""The demo: a small drawn world with a web server, tiny models trained on it, and a judge of what they draw."""
