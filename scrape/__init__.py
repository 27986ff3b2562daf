"""Pictures come in: the LAION filter, the downloader, FFHQ, COCO, folders; and the Collection they fill."""
