"""Files on this machine and at addresses: written whole, listed, remembered."""
