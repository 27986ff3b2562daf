"""The Collection: one source's images, and all that is known of them."""
