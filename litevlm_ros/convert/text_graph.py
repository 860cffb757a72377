"""The graph `text_decoder.onnx`, whose layers are alike: one of them is drawn, and the graph repeats it.

torch's exporter takes a second or two for each layer of a decoder with growing shapes. So it draws three pieces, what
lies before the layers, a layer, and what lies behind them, and these are put together here with the names of the whole
module. A layer is drawn with numbers of its own, so that no constant of the piece can depend on those of one layer.
"""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.export import Dim

from litevlm_ros.convert.onnx_graphs import OPSET, export_graph, text_inputs
from litevlm_ros.convert.qwen import QwenDecoder, QwenLayer
from litevlm_ros.errors import EngineError

_NEW, _ROWS, _WANTED, _VISUAL = 5, 7, 3, 4
"""Sizes with which the pieces are drawn; all of them are dynamic."""
_PIECE = "decoder."
"""The beginning of parameters' names in the pieces."""


def text_graph(module: QwenDecoder, opset: int = OPSET) -> ir.Model:
    """Draws `text_decoder.onnx`; S, C, K and M are dynamic. `opset` is OPSET or PACKED_OPSET. Raises EngineError."""
    config = module.config
    ids, positions, past_length, wanted, visual, keys, values = text_inputs(module, _NEW, _ROWS, _WANTED, _VISUAL)
    dtype = module.norm.weight.dtype
    with torch.no_grad():
        cos, sin = module.rotary(positions, dtype)
        mask = module.mask(_NEW, past_length, _ROWS)
    hidden = torch.zeros(_NEW, config.hidden_size, dtype=dtype)
    any_size = Dim.AUTO

    start = export_graph(
        _Start(module),
        (ids, positions, past_length, visual, keys[0]),
        ({0: "S"}, {0: "S"}, None, {0: "M"}, {0: "C"}),
        ["input_ids", "position_ids", "past_length", "visual_tokens", "past_key"],
        ["embedded", "cos", "sin", "mask"],
        opset,
    )
    # The mask's size is a multiple of S, which names of axes cannot say.
    layer = export_graph(
        _Layer(_sample(module)),
        (hidden, cos, sin, mask, keys[0], values[0]),
        ({0: any_size}, {0: any_size}, {0: any_size}, {0: any_size, 1: any_size}, {0: any_size}, {0: any_size}),
        ["before", "cos", "sin", "mask", "past_key", "past_value"],
        ["after", "new_key", "new_value"],
        opset,
    )
    end = export_graph(
        _End(module),
        (hidden, wanted),
        ({0: "S"}, {0: "K"}),
        ["after", "logit_positions"],
        ["logits", "next_tokens", "hidden"],
        opset,
    )
    return _Assembly(module, start).of(layer, end)


class _Start(nn.Module):
    """Everything before the first layer."""

    def __init__(self, decoder: QwenDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, past_length: Tensor, visual_tokens: Tensor, past_key: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        hidden = self.decoder.embed(input_ids, visual_tokens)
        cos, sin = self.decoder.rotary(position_ids, hidden.dtype)
        return hidden, cos, sin, self.decoder.mask(input_ids.shape[0], past_length, past_key.shape[0])


class _Layer(nn.Module):
    """One layer."""

    def __init__(self, layer: QwenLayer) -> None:
        super().__init__()
        self.decoder = layer

    def forward(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past_key: Tensor, past_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor] = self.decoder(hidden, cos, sin, mask, past_key, past_value)
        return found


class _End(nn.Module):
    """Everything behind the last layer."""

    def __init__(self, decoder: QwenDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, hidden: Tensor, logit_positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.decoder.choose(hidden, logit_positions)


def _sample(module: QwenDecoder) -> QwenLayer:
    """Returns a layer of the module's shapes and type: small parameters are random, and matrices take no memory."""
    random = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        layer = QwenLayer(module.config)
    for name, parameter in [*layer.named_parameters()]:
        owner, _, attribute = name.rpartition(".")
        dtype = module.norm.weight.dtype
        numbers = torch.zeros((), dtype=dtype).expand(parameter.shape)
        if parameter.dim() == 1:
            numbers = torch.rand(parameter.shape, generator=random).to(dtype)
        setattr(layer.get_submodule(owner), attribute, nn.Parameter(numbers, requires_grad=False))
    return layer


class _Assembly:
    """A model to which pieces are added, whose values get the names of the whole module."""

    def __init__(self, module: QwenDecoder, start: ir.Model) -> None:
        config = module.config
        self._module = module
        self._types = {value.name: value.type for value in start.graph.inputs}
        self._model = ir.Model(
            ir.Graph([], [], nodes=[], opset_imports=dict(start.graph.opset_imports), name="text_decoder"),
            ir_version=start.ir_version,
        )
        self._start = start
        self._rows: ir.Value | None = None
        self._row = ("C", config.num_kv_heads, config.head_dim)

    def of(self, layer: ir.Model, end: ir.Model) -> ir.Model:
        """Puts start, all layers and end together."""
        module, graph, count = self._module, self._model.graph, self._module.config.num_layers
        number, activation = ir.TensorType(ir.DataType.INT64), self._types["visual_tokens"]
        width = module.config.hidden_size
        given = {
            "input_ids": self._input("input_ids", ("S",), number),
            "position_ids": self._input("position_ids", ("S",), number),
            "past_length": self._input("past_length", (1,), number),
            "logit_positions": self._input("logit_positions", ("K",), number),
            "visual_tokens": self._input("visual_tokens", ("M", width), activation),
        }
        keys = [self._input(f"past_key.{index}", self._row, activation) for index in range(count)]
        values = [self._input(f"past_value.{index}", self._row, activation) for index in range(count)]
        begun = self._add(self._start, {**given, "past_key": keys[0]}, "start", module, "")
        hidden, shared = begun["embedded"], {name: begun[name] for name in ("cos", "sin", "mask")}
        news: dict[str, list[ir.Value]] = {"new_key": [], "new_value": []}
        for index in range(count):
            taken = {**shared, "before": hidden, "past_key": keys[index], "past_value": values[index]}
            made = self._add(layer, taken, "layer", module.layers[index], f"layers.{index}.")
            hidden = made["after"]
            for kind, all_of_it in news.items():
                made[kind].name, made[kind].shape = f"{kind}.{index}", ir.Shape(("S", *self._row[1:]))
                all_of_it.append(made[kind])
        ended = self._add(end, {**given, "after": hidden}, "end", module, "")
        for name, size in (("logits", module.config.vocab_size), ("next_tokens", 0), ("hidden", width)):
            ended[name].name, ended[name].shape = name, ir.Shape(("K", size) if size else ("K",))
            graph.outputs.append(ended[name])
        graph.outputs.extend([*news["new_key"], *news["new_value"]])
        return self._model

    def _input(self, name: str, shape: tuple[int | str, ...], kind: ir.TypeProtocol | None) -> ir.Value:
        value = ir.Value(name=name, shape=ir.Shape(shape), type=kind)
        self._model.graph.inputs.append(value)
        return value

    def _add(
        self, piece: ir.Model, given: dict[str, ir.Value], kind: str, module: nn.Module, path: str
    ) -> dict[str, ir.Value]:
        """Adds a copy of `piece`, which reads `given` by the names of its inputs. Returns its outputs by name.

        Pieces of one `kind` share their constants. `path` stands before the names that `module` gives its parameters.
        Raises EngineError if the piece lacks one.
        """
        prefix = path.removesuffix(".") or kind
        graph, part = self._model.graph, piece.graph.clone()
        parameters = {f"{_PIECE}{name}": value for name, value in module.named_parameters(remove_duplicate=False)}
        for value in [*part.inputs]:
            ir.convenience.replace_all_uses_with(value, given[str(value.name)])
        for name, value in [*part.initializers.items()]:
            del part.initializers[name]
            parameter = parameters.get(name)
            ours = f"{kind}.{name}" if parameter is None else f"{path}{name.removeprefix(_PIECE)}"
            if parameter is self._tied() and parameter is not None:
                ours = "embed_tokens.weight"
            if ours in graph.initializers:
                ir.convenience.replace_all_uses_with(value, graph.initializers[ours])
                continue
            value.name = ours
            if parameter is not None:
                value.const_value = ir.tensor(parameter.detach(), name=ours)
            graph.register_initializer(value)
        outputs = {str(value.name): value for value in part.outputs}
        nodes = [*part]
        part.outputs.clear()
        part.remove(nodes)
        nodes = [node for node in nodes if not self._is_known_shape(node)]
        graph.extend(nodes)
        for index, node in enumerate(nodes):
            node.name = f"{prefix}.node.{index}"
        results = [value for node in nodes for value in node.outputs]
        for index, value in enumerate(results):
            value.name, value.shape = f"{prefix}.{index}", None
        lacking = [name for name, _ in module.named_parameters() if f"{path}{name}" not in graph.initializers]
        if path and lacking:
            raise EngineError(f"a layer's graph lacks {lacking[0]}; use the torch version this package is pinned to")
        return outputs

    def _is_known_shape(self, node: ir.Node) -> bool:
        """Tells whether `node` reads the number of cache rows, and lets others use the first node that does.

        It is the same in all layers.
        """
        if node.op_type != "Shape" or not str(node.inputs[0] and node.inputs[0].name).startswith("past_key."):
            return False
        if self._rows is None:
            self._rows = node.outputs[0]
            return False
        ir.convenience.replace_all_uses_with(node.outputs[0], self._rows)
        node.replace_input_with(0, None)
        return True

    def _tied(self) -> Tensor | None:
        """Returns the table that embedding and head share, None if they are two."""
        table, head = self._module.embed_tokens.weight, self._module.lm_head.weight
        return table if table is head else None
