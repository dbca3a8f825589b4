"""Tables of strings from CSV files and spreadsheets."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from guidedattn.errors import DataError


def read_table(path: Path, *columns: str, encoding: str = "utf-8-sig") -> pd.DataFrame:
    """Read a CSV table as stripped strings, empty where it says nothing.

    Raises:
        DataError: The table is missing, unreadable or lacks one of `columns`.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding=encoding)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the table cannot be read ({error})") from None
    return _checked(path, table, columns)


def read_sheet(path: Path, *columns: str) -> pd.DataFrame:
    """Read the first sheet of an Excel file as `read_table` reads a CSV table.

    Raises:
        DataError: The sheet is missing, unreadable or lacks one of `columns`, or openpyxl is not installed.
    """
    try:
        table = pd.read_excel(path, dtype=str, keep_default_na=False)
    except ImportError:
        raise DataError(f"{path}: a spreadsheet needs openpyxl: pip install 'guidedattn[xlsx]'") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # zip, XML and format errors alike
        raise DataError(f"{path}: the sheet cannot be read ({error or type(error).__name__})") from None
    return _checked(path, table, columns)


def _checked(path: Path, table: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    absent = [column for column in columns if column not in table.columns]
    if absent:
        raise DataError(f"{path}: the table lacks the column {', '.join(absent)}")
    stripped: pd.DataFrame = table.apply(lambda column: column.str.strip())
    return stripped
