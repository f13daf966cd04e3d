"""`python -m stock_pipeline` is `stock-pipeline`, by the interpreter that runs already."""

from stock_pipeline.cli import app

app(prog_name="stock-pipeline")
