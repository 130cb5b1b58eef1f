"""What a reader makes of stored columns: thresholds, classes, evidence, records, filters, exports. numpy only."""
