"""What people and programs write beside images: documents, tables, shards."""
