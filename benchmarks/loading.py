"""From a checkpoint on disk to the first feature's tokens: wbtui against loading the whole model.

A Gemma-2-2b-shaped checkpoint (bfloat16, random) and an SAE of 16,384 features are written to a temporary folder and
deleted after. Every case is a process of its own, timed from its start (imports included) to the ten best tokens of one
feature; peak memory is the process's highest resident size, mapped pages included. The page cache is warm for all:
each file is read once before.

* ``wbtui first look``: ``wbtui show --now``: nothing runs and nothing is kept. Start the service, which starts its
  worker, and answer for one lone feature with the texts of its tokens, before the weights are fingerprinted;
* ``wbtui``: what the app does: start the service, which starts its worker while it takes the fingerprints, makes the
  vocabulary product and answers for one lone feature (with numpy: torch is imported later), all in an empty cache.
  Memory is the client's, the service's and the worker's together; ``wbtui again``: the same with the fingerprints and
  the vocabulary there, as on every later start; ``wbtui running``: a new process where a service is running that has
  answered for another feature;
* ``transformers``: ``AutoModelForCausalLM.from_pretrained`` in bfloat16;
* ``HookedTransformer``, ``TransformerBridge``: TransformerLens in bfloat16, no processing.

``--full`` takes all 26 layers and 256,000 tokens (5.2 GB); by default 6 layers and 64,000 tokens, about a fifth of the
bytes. ``--made FOLDER`` takes the checkpoint from there, and writes (and keeps) it where it is not. ``--limit-gb``
bounds each process's data, so that one that needs more fails by itself: that is a result too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

D_MODEL, D_MLP, HEADS, KV, D_HEAD, D_SAE = 2304, 9216, 8, 4, 256, 16_384
LAYER = 1
FEATURE = 123
CASES = (
    "wbtui first look",
    "wbtui",
    "wbtui again",
    "wbtui running",
    "transformers",
    "HookedTransformer",
    "TransformerBridge",
)


def write(folder: Path, layers: int, vocab: int) -> dict[str, int]:
    """The checkpoint, its tokenizer and the SAE; returns bytes: whole, and of the tensors that one feature needs."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) * 0.02).to(torch.bfloat16)

    model, names = folder / "model", {}
    model.mkdir()
    blocks: list[dict[str, tuple[int, ...]]] = [
        {"model.embed_tokens.weight": (vocab, D_MODEL), "model.norm.weight": (D_MODEL,)}
    ]
    for layer in range(layers):
        front = f"model.layers.{layer}."
        norms = ("input", "post_attention", "pre_feedforward", "post_feedforward")
        blocks.append(
            {
                front + "self_attn.q_proj.weight": (HEADS * D_HEAD, D_MODEL),
                front + "self_attn.k_proj.weight": (KV * D_HEAD, D_MODEL),
                front + "self_attn.v_proj.weight": (KV * D_HEAD, D_MODEL),
                front + "self_attn.o_proj.weight": (D_MODEL, HEADS * D_HEAD),
                front + "mlp.gate_proj.weight": (D_MLP, D_MODEL),
                front + "mlp.up_proj.weight": (D_MLP, D_MODEL),
                front + "mlp.down_proj.weight": (D_MODEL, D_MLP),
                **{f"{front}{name}_layernorm.weight": (D_MODEL,) for name in norms},
            }
        )
    for i, block in enumerate(blocks):
        file = f"model-{i + 1:05}-of-{len(blocks):05}.safetensors"
        save_file({name: random(*shape) for name, shape in block.items()}, model / file, metadata={"format": "pt"})
        names |= dict.fromkeys(block, file)
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    config = {
        "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "hidden_size": D_MODEL,
        "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": KV, "head_dim": D_HEAD,
        "intermediate_size": D_MLP, "vocab_size": vocab, "dtype": "bfloat16", "hidden_act": "gelu_pytorch_tanh",
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    (model / "config.json").write_text(json.dumps(config))
    _write_tokenizer(model, vocab)
    sae = model / "saes" / "L1"
    sae.mkdir(parents=True)
    rows = torch.randn(D_SAE, D_MODEL, generator=generator)
    rows /= rows.norm(dim=1, keepdim=True)
    state = {"W_enc": rows.T.contiguous(), "W_dec": rows, "b_enc": torch.zeros(D_SAE), "b_dec": torch.zeros(D_MODEL)}
    save_file(state, sae / "sae_weights.safetensors")
    (sae / "cfg.json").write_text(
        json.dumps(
            {
                "architecture": "standard", "d_in": D_MODEL, "d_sae": D_SAE, "dtype": "float32", "device": "cpu",
                "apply_b_dec_to_input": False, "normalize_activations": "none",
                "metadata": {"model_name": "made-up", "hook_name": f"blocks.{LAYER}.hook_resid_post"},
            }
        )
    )  # fmt: skip
    return sizes_of(folder, vocab)


def sizes_of(folder: Path, vocab: int) -> dict[str, int]:
    """Bytes of all weights, and of the tensors that one feature needs: the token table and the dictionary."""
    return {
        "files": sum(f.stat().st_size for f in (folder / "model").rglob("*.safetensors")),
        "needed": vocab * D_MODEL * 2 + 2 * D_SAE * D_MODEL * 4,
    }


def _write_tokenizer(folder: Path, vocab: int) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<bos>", "<eos>", "<pad>"]
    words = (f"Ġword{i}" for i in range(vocab))
    tokens = [*special, *alphabet, *words][:vocab]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))


def run_case(name: str, folder: Path) -> list[int]:
    """One case, in this process: ids of the feature's ten best tokens."""
    import torch

    model_dir = folder / "model"
    if name == "transformers":
        import transformers

        model = transformers.AutoModelForCausalLM.from_pretrained(
            model_dir, dtype=torch.bfloat16, local_files_only=True
        )
        gain, unembed = 1 + model.model.norm.weight.float(), model.lm_head.weight
        return _best(folder, gain, unembed)
    if name == "HookedTransformer":
        model = _hooked(model_dir)
        return _best(folder, model.ln_final.w.float(), model.unembed.W_U.T)

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("the bridge may not install packages")

    subprocess.check_call = refuse  # type: ignore[assignment]
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(str(model_dir), device="cpu", dtype=torch.bfloat16)
    inner = bridge.original_model
    return _best(folder, 1 + inner.model.norm.weight.float(), inner.lm_head.weight)


def _hooked(folder: Path) -> Any:
    """What ``HookedTransformer.from_pretrained_no_processing`` does for a Gemma-2, from a folder."""
    import torch
    import transformers
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gemma_weights

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
    config = model.config
    cfg = HookedTransformerConfig(
        n_layers=config.num_hidden_layers, d_model=D_MODEL, n_ctx=2048, d_head=D_HEAD, n_heads=HEADS, d_mlp=D_MLP,
        d_vocab=config.vocab_size, act_fn="gelu_pytorch_tanh", normalization_type="RMS", final_rms=True,
        positional_embedding_type="rotary", rotary_dim=D_HEAD, n_key_value_heads=KV, gated_mlp=True, eps=1e-6,
        use_normalization_before_and_after=True, original_architecture="Gemma2ForCausalLM", device="cpu",
        dtype=torch.bfloat16,
    )  # fmt: skip
    state = convert_gemma_weights(model, cfg)
    hooked = HookedTransformer(cfg, move_to_device=False)
    hooked.load_and_process_state_dict(
        state, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    return hooked


def _best(folder: Path, gain: Any, unembed: Any) -> list[int]:
    import torch
    from safetensors import safe_open

    with safe_open(folder / "model" / "saes" / "L1" / "sae_weights.safetensors", "pt") as file, torch.no_grad():
        direction = file.get_slice("W_dec")[FEATURE] * gain
        return (unembed.float() @ direction.flatten()).topk(10).indices.tolist()


def _service(
    folder: Path, feature: int = FEATURE, *, running: bool = False, stop: bool = True, first: bool = False
) -> dict[str, Any]:
    """What a user waits for: a client that finds no service. Everybody's peak memory and processor time together.

    Args:
        running: there is a service; what it has used before is no part of the processor time.
        stop: end the service.
        first: no more than a first look.
    """
    from wbtui.definitions import DEFINITIONS, to_json
    from wbtui.service.client import Client
    from wbtui.service.wishes import RowRequest

    definition, cache = to_json(DEFINITIONS["folded"]), os.environ["WBTUI_CACHE_DIR"]
    request = RowRequest(str(folder / "model"), "L1", definition, cache, feature, first)
    with Client.connect() as client:
        before = _used(client) if running else []
        row = client.row(request)
        seconds = time.monotonic() - float(os.environ["LOADING_BEGAN"])
        used = _used(client)
        if stop:
            client.stop()
    ids = [int(i) for i in row["writes.top_ids"][:10]]
    cpu = sum(cpu for _, cpu in used) - sum(cpu for _, cpu in before)
    return {"seconds": seconds, "peak_mb": sum(peak for peak, _ in used), "cpu": cpu, "top": ids}


def _used(client: Any) -> list[tuple[float, float]]:
    """What client, service and workers have used."""
    status = client.status()
    pids = [os.getpid(), status["pid"], *(w["pid"] for w in status["workers"] if w.get("pid"))]
    return [_process(pid) for pid in pids]


def _process(pid: int) -> tuple[float, float]:
    """(highest resident MB, processor seconds) of a living process."""
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return peak / 1024, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(name: str, folder: Path, own: Path, limit_gb: float) -> dict[str, Any]:
    """A case in a process of its own: seconds, peak MB, token ids; or how it failed.

    Args:
        name: one of :data:`CASES`.
        folder: the checkpoint's.
        own: this run's, for caches and the service.
        limit_gb: of a process's data.
    """

    def bounded() -> None:
        size = int(limit_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))

    code = f"import sys; from benchmarks.loading import child; child({name!r}, {str(folder)!r})"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PIP_NO_INDEX": "1"}
    environment |= {f"WBTUI_{what}_DIR": str(own / what.lower()) for what in ("RUNTIME", "DATA", "CONFIG", "LOG")}
    environment["WBTUI_CACHE_DIR"] = str(own / "cache")
    if name == "wbtui running":
        begin = f"from benchmarks.loading import serve; serve({str(folder)!r})"
        subprocess.run([sys.executable, "-c", begin], env=environment | {"LOADING_BEGAN": "0"}, check=True)
    start = time.monotonic()
    environment["LOADING_BEGAN"] = repr(start)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, preexec_fn=bounded, check=False
    )
    seconds = time.monotonic() - start
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not lines:
        words = (done.stderr.strip().splitlines() or [f"signal {-done.returncode}"])[-1]
        return {"seconds": None, "failed": words[:300], "after": round(seconds, 1)}
    return {"seconds": seconds, **json.loads(lines[-1].removeprefix("RESULT "))}


def serve(folder: str) -> None:
    """Leave a service behind that has answered for another feature."""
    _service(Path(folder), FEATURE + 1, stop=False)


def child(name: str, folder: str) -> None:
    """The other process."""
    if name.startswith("wbtui"):
        print(
            "RESULT " + json.dumps(_service(Path(folder), running=name == "wbtui running", first="first" in name)),
            flush=True,
        )
        os._exit(0)
    ids = run_case(name, Path(folder))
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {"peak_mb": used.ru_maxrss / 1024, "cpu": used.ru_utime + used.ru_stime, "top": ids}
    print("RESULT " + json.dumps(found), flush=True)
    os._exit(0)  # the time to tear a model down is nobody's wait


def main() -> int:
    """Write, measure, print, delete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all 26 layers and 256,000 tokens")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--vocab", type=int)
    parser.add_argument("--limit-gb", type=float, default=16.0, help="data of each process (default 16)")
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--folder", type=Path, help="where the temporary files go")
    parser.add_argument("--made", type=Path, help="a checkpoint's folder, made where it is not there; kept")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    layers = args.layers or (26 if args.full else 6)
    vocab = args.vocab or (256_000 if args.full else 64_000)
    with tempfile.TemporaryDirectory(prefix="wbtui-loading-", dir=args.folder) as name:
        folder = args.made or Path(name)
        sizes = write(folder, layers, vocab) if not (folder / "model").exists() else sizes_of(folder, vocab)
        factor = sizes["files"] / (26 * 155_746_304 + 256_000 * D_MODEL * 2 + 2 * D_SAE * D_MODEL * 4)
        print(
            f"{layers} layers, {vocab:,} tokens: {sizes['files'] / 1e9:.2f} GB, {factor:.2f} of Gemma-2-2b and its SAE"
        )
        for file in sorted(folder.rglob("*.safetensors")):
            with file.open("rb") as handle:
                while handle.read(1 << 24):
                    pass
        results = {case: measure(case, folder, Path(name), args.limit_gb) for case in args.cases}
    ours = results.get("wbtui", {})
    base = ours.get("seconds")
    for case, found in results.items():
        if found["seconds"] is None:
            print(f"{case:20} failed after {found['after']} s: {found['failed']}")
            continue
        ratio = f"{found['seconds'] / base:6.1f} ×" if base else ""
        shared = len(set(found["top"]) & set(ours.get("top", [])))
        spent = f"{found['seconds']:7.1f} s {ratio}  {found['cpu']:6.1f} s CPU {found['peak_mb']:8.0f} MB"
        print(f"{case:20} {spent}   {shared} of ten tokens as wbtui")
    needed = sizes["needed"] / 2**20
    print(f"tensors in use: {needed:.0f} MB")
    if args.json is not None:
        record: dict[str, Any] = {"layers": layers, "vocab": vocab, "factor": factor, "needed_mb": needed}
        record |= {"cases": results}
        if base:
            record["memory_ratio"] = ours["peak_mb"] / needed
            theirs = results.get("TransformerBridge", {}).get("seconds")
            record |= {"bridge_ratio": base / theirs} if theirs else {}
            warm = results.get("wbtui running", {}).get("seconds")
            record |= {"running_bridge_ratio": warm / theirs} if warm and theirs else {}
        args.json.write_text(json.dumps(record, indent=1))
    failed = ours.get("seconds") is None and "wbtui" in args.cases
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
