"""Downloading the candidates' images."""
