"""Replace the table between two marks of a page; the scripts that write tables from the code share it."""  # noqa: INP001


def replace_table(text: str, name: str, table: str) -> str:
    """Return the text of a page with another table between its marks.

    Args:
        text: The page.
        name: What the marks name, as in `<!-- name -->` and `<!-- end of name -->`.
        table: The table, with an empty line before it.

    Raises:
        ValueError: The page has no such marks.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        message = f"the page has no lines {begin.strip()} and {end.strip()}"
        raise ValueError(message)
    return f"{before}{begin}{table}\n{end}{after}"
