"""From predictions to the paper's table: metrics, report, figures; only `predicting` needs torch."""
