"""The paper's three experiments for a model, headless: CSV, SVG and one Markdown page (``wbtui report``)."""
