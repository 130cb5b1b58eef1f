"""``wbtui show MODEL --direction V --at POSITION``: a vector of the user's through the code of features."""

from __future__ import annotations

import math
from typing import Any

from wbtui.cli.common import print_json, say
from wbtui.errors import UsageError


def show_direction(
    address: Any, vector: str, at: str | None, *, as_json: bool, compute: bool, quiet: bool, **work: Any
) -> None:
    """Ask, and print a record or a card; ``compute``: make the population's rows and noise where they are missing.

    Raises:
        UsageError: no position, or a file that is not such a vector.
    """
    from wbtui.address import Address
    from wbtui.catalog.models import find_model
    from wbtui.catalog.saes import list_saes
    from wbtui.catalog.stream import at_position, parse_position
    from wbtui.cli.ask import absolute_vector, ask
    from wbtui.cli.compute import plan_of
    from wbtui.cli.compute import table_of as table_of_sae
    from wbtui.features.asking import split_vector
    from wbtui.features.probe_text import direction_lines, table_of
    from wbtui.features.table import FeatureTable

    path, tensor, place = split_vector(vector)
    place = at or place
    if not place:
        raise UsageError(f"{vector}: no stream position", "where the vector lives", "say so: --at L3.resid_post")
    model = find_model(address.model)
    saes = list_saes(model)
    if not saes:
        raise UsageError(
            f"{model.name}: no SAE of this model", "at least one, to be judged against", "`wbtui download` fetches one"
        )
    found = at_position(saes, parse_position(place, model.n_layers))
    anchor = address.sae or (found[0] if found else saes[0]).name
    definition = work.pop("definition")
    args = {"path": absolute_vector(path), "tensor": tensor, "at": place}
    answer = ask(Address(address.model, anchor), "direction", args, definition=definition, **work)
    population = None
    if answer["sae"] is not None:
        place_of = Address(address.model, answer["sae"])
        if compute:
            population = table_of_sae(place_of, definition, compute=True, quiet=quiet, checks=False, **work)
        else:
            plan, cache = plan_of(place_of, definition)
            population = FeatureTable.open(cache, plan)
    if as_json:
        from wbtui.features.probe import places

        table = table_of(answer, population, definition)
        ranks = {} if population is None else places(table, population)
        percentiles = {name: None if math.isnan(v) else v for name, v in ranks.items()}
        print_json({"schema": "wbtui.direction/1", **answer, "percentiles": percentiles})
    else:
        say("\n".join(direction_lines(answer, population, definition, vector)))
