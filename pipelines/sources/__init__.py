"""Where imported pictures come from: folders, parquet files, WebDataset tars; hostile until read."""
