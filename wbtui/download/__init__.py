"""Models and SAEs from the Hub into the local Hub cache: only the files needed. The one room that asks a network.

Run in a process of its own (``wbtui download``), never in the app's or the service's. Standard library only.
"""
