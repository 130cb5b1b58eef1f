"""``python -m wbtui``: the ``wbtui`` command where its script is not on the path."""

from wbtui.start import main

if __name__ == "__main__":
    main()
