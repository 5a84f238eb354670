"""Predictions as plain rows and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from tunekit.retraining.predict import Prediction

Row = dict[str, Any]


def prediction_rows(predictions: Sequence[Prediction], top: int) -> list[Row]:
    """One row an image, with its `top` most probable classes."""
    return [
        {
            "image": str(prediction.image),
            "predictions": [
                {"class": name, "probability": round(probability, 6)}
                for name, probability in prediction.classes[:top]
            ],
        }
        for prediction in predictions
    ]


def prediction_table(rows: list[Row]) -> Table:
    """`prediction_rows` for a terminal."""
    table = Table("image")
    for place in range(max((len(row["predictions"]) for row in rows), default=0)):
        table.add_column("class" if place == 0 else f"class {place + 1}")
        table.add_column("probability", justify="right")
    for row in rows:
        cells = [
            cell for named in row["predictions"] for cell in (named["class"], f"{named['probability']:.4f}")
        ]
        table.add_row(*(Text(cell) for cell in (row["image"], *cells)))  # Text: brackets in a name stay
    return table
