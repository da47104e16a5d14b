"""Tables in Markdown files, between a marker with their name and the next end."""

import re


def filled(text: str, tables: dict[str, str]) -> str:
    """Return a text with every table put between its markers.

    Raises:
        ValueError: if the markers of a table are not there once.
    """
    for name, table in tables.items():
        begin = f"<!-- begin {name} -->"
        new = f"{begin}\n{table}\n<!-- end -->"
        text, count = re.subn(f"{re.escape(begin)}.*?<!-- end -->", lambda _, new=new: new, text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"the page needs {begin} ... <!-- end --> once, found it {count} times")
    return text
