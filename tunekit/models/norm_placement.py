"""Where batch norm stands: one rewriting of the network's graph for every convolutional family.

before_act   conv -> norm -> act    as published
after_act    conv -> act -> norm    the norm that precedes an addition moves behind the activation
                                    that follows the addition; the norm of a projection stays
none         conv -> act            norms are folded into the convolution before them
pre_act      norm -> act -> conv    He et al. 2016b (arXiv:1603.05027): the norm that precedes an addition
                                    moves behind it, the shortcut carries the raw sum, a projection has
                                    no norm; the stem stays, and the last sum is normed and activated

The order is read from the graph that torch.fx traces, not from the names of modules, so a network of
any library will do.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

from torch import fx, nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.fusion import fuse_conv_bn_weights

from tunekit.errors import RecipeError
from tunekit.recipe import BN_PLACEMENTS

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)
_ACTIVATION_FILES = ("torch.nn.modules.activation", "timm.layers.activations")
_ACTIVATIONS = {"relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "hardswish"}
_ADDITIONS = {"add", "iadd", "add_"}
# Layers of timm and torchvision that leave a tensor's shape and the meaning of its channels.
_PASSING = {"DropPath", "DropBlock2d", "StochasticDepth", "LayerScale", "LayerScale2d"}


def place_norm(body: nn.Module, placement: str, fresh: bool) -> nn.Module:
    """Move or remove the norms of `body`; parameters keep their names and, where shapes allow, their values.

    Args:
        body: a network as its library publishes it; used up, except by `before_act`.
        placement: one of `tunekit.recipe.BN_PLACEMENTS`.
        fresh: whether the weights of `body` are random. If so, a norm that moves behind an addition
            starts with scale 1 (libraries start some at 0, which would silence the network there), and
            `none` starts the last convolution of each residual branch at zero, so that the network
            begins as the identity (Zhang et al. 2019, Fixup, arXiv:1901.09321, section 3). If not,
            `none` computes what `body` computes in eval mode, but for norms that no convolution feeds.
    Returns:
        `body` itself for `before_act`, else a `torch.fx.GraphModule` whose modules keep their paths. With
        `none` every convolution has a bias.
    Raises:
        RecipeError: if `body` has no norm to move, no residual block (`pre_act`), or cannot be traced.
    """
    assert placement in BN_PLACEMENTS, placement
    if placement == "before_act":
        return body
    wiring = _Wiring(body, placement)
    if placement == "after_act":
        _put_norms_behind_activations(wiring, fresh)
    elif placement == "pre_act":
        _put_norms_behind_additions(wiring, fresh)
    else:
        _remove_norms(wiring, fresh)
    return wiring.built()


def _put_norms_behind_activations(wiring: _Wiring, fresh: bool) -> None:
    wiring.require(wiring.norms, "norms")
    for norm in wiring.norms:
        if activation := wiring.activation_behind(norm):
            _move_behind(norm, activation)
        elif activation := wiring.hidden_activation_behind(norm):
            wiring.widen(norm, layer=activation.all_input_nodes[0])
            _move_behind(norm, activation)
    for residual in wiring.normed_residuals:
        _move_behind(residual.norm, residual.activation)
        if fresh:
            wiring.wake(residual.norm)


def _put_norms_behind_additions(wiring: _Wiring, fresh: bool) -> None:
    wiring.require(wiring.normed_residuals, "residual blocks that end in norm, addition and activation")
    readers = wiring.readers_of_sums()
    for residual in wiring.normed_residuals:
        _move_behind(residual.norm, residual.addition)
        if fresh:
            wiring.wake(residual.norm)
        if residual.projection_norm:
            wiring.remove(residual.projection_norm)
    for reader, residual in readers:
        reader.replace_input_with(residual.activation, residual.addition)


def _remove_norms(wiring: _Wiring, fresh: bool) -> None:
    for norm in wiring.norms:
        if not fresh:
            wiring.fold(norm)
        wiring.remove(norm)
    wiring.give_biases()
    if fresh:
        wiring.silence_residuals()


def _move_behind(norm: Node, place: Node) -> None:
    norm.replace_all_uses_with(norm.all_input_nodes[0])
    place.replace_all_uses_with(norm)
    norm.args = (place,)
    place.append(norm)


@dataclass(frozen=True)
class _Residual:
    """A branch that ends in a norm, the addition of its shortcut, the activation of the sum alone."""

    norm: Node
    addition: Node
    activation: Node
    projection_norm: Node | None


class _Wiring:
    """The graph of a body, in which convolutions, norms, activations and additions are known.

    Attributes:
        norms: the norms in the order of execution.
        normed_residuals: the residual additions between a norm and an activation.
    """

    def __init__(self, body: nn.Module, placement: str) -> None:
        self._body = body
        self._placement = placement
        self._graph = _trace(body, placement)
        self._modules = dict(body.named_modules())
        self._drop_identities()
        self._depth = self._convolutions_before()
        self.norms = [node for node in self._graph.nodes if self._is_norm(node)]
        assert len({norm.target for norm in self.norms}) == len(self.norms), "a norm is called twice"
        joins = [node for node in self._graph.nodes if self._is_residual_addition(node)]
        self._joins = {
            node: tuple(sorted(node.all_input_nodes, key=self._depth.__getitem__)) for node in joins
        }
        lasts = [self._last_convolution(branch) for _, branch in self._joins.values()]
        self._last_convolutions = [node for node in lasts if node]
        self.normed_residuals = [residual for node in joins if (residual := self._normed(node))]

    def built(self) -> fx.GraphModule:
        """The rewritten network."""
        self._stop_overwriting()
        self._graph.lint()
        return fx.GraphModule(self._body, self._graph, class_name=type(self._body).__name__)

    def require(self, found: list[Node] | list[_Residual], what: str) -> None:
        """Refuse a network in which nothing was found to move."""
        if not found:
            raise _refusal(self._body, self._placement, what, "has none")

    # What stands where

    def module(self, node: Node) -> nn.Module | None:
        return self._modules[str(node.target)] if node.op == "call_module" else None

    def is_convolution(self, node: Node) -> bool:
        return isinstance(self.module(node), _ConvNd)

    def _is_norm(self, node: Node) -> bool:
        return isinstance(self.module(node), _NORMS)

    def _is_activation(self, node: Node) -> bool:
        if module := self.module(node):
            return type(module).__module__.startswith(_ACTIVATION_FILES)
        return _called(node) in _ACTIVATIONS

    def _passes(self, node: Node) -> bool:
        if module := self.module(node):
            return isinstance(module, _DropoutNd) or type(module).__name__ in _PASSING
        return _called(node) == "mul"

    def _is_residual_addition(self, node: Node) -> bool:
        """Whether a sum joins a longer way from the images with a shorter one."""
        depths = [self._depth.get(given) for given in node.all_input_nodes]
        return _called(node) in _ADDITIONS and None not in depths and len(set(depths)) == 2

    def _convolutions_before(self) -> dict[Node, int]:
        """Convolutions on the longest way from the images to each node that sees them."""
        depth: dict[Node, int] = {}
        for node in self._graph.nodes:
            before = [depth[given] for given in node.all_input_nodes if given in depth]
            if before or node.op == "placeholder":
                depth[node] = max(before, default=0) + self.is_convolution(node)
        return depth

    def readers_of_sums(self) -> list[tuple[Node, _Residual]]:
        """The first node of each shortcut, unless a convolution, and the block whose sum it should read.

        An activation that only a shortcut reads keeps its reader, else its norm would do nothing.
        """
        starts = {residual.activation: residual for residual in self.normed_residuals}
        readers = []
        for addition, (shortcut, _) in self._joins.items():
            reader, node = addition, shortcut
            while node in self._depth and node.all_input_nodes and not self._is_activation(node):
                reader, node = node, self._shortest_way_back(node)
            if node in starts and len(node.users) > 1 and not self.is_convolution(reader):
                readers.append((reader, starts[node]))
        return readers

    def activation_behind(self, norm: Node) -> Node | None:
        """The activation that a norm alone feeds."""
        node = _only_user(norm)
        while node and self._passes(node):
            node = _only_user(node)
        return node if node and self._is_activation(node) else None

    def hidden_activation_behind(self, norm: Node) -> Node | None:
        """The activation of the hidden layer that a LayerNorm alone feeds, as in ConvNeXt."""
        layer = _only_user(norm)
        if layer is None or not isinstance(self.module(norm), nn.LayerNorm):
            return None
        activation = _only_user(layer)
        is_hidden = isinstance(self.module(layer), nn.Linear | _ConvNd)
        return activation if is_hidden and activation and self._is_activation(activation) else None

    def _source(self, node: Node, is_wanted: Callable[[Node], bool]) -> Node | None:
        """What `node` is, or passes on (dropout, a gate of squeeze-and-excitation), if that is wanted."""
        while self._passes(node):
            node = self._shortest_way_back(node)  # a gate has more convolutions before it
        return node if is_wanted(node) else None

    def _shortest_way_back(self, node: Node) -> Node:
        seen = [given for given in node.all_input_nodes if given in self._depth]
        return min(seen, key=self._depth.__getitem__)

    def _last_convolution(self, branch: Node) -> Node | None:
        norm = self._source(branch, self._is_norm)
        return self._source(norm.all_input_nodes[0] if norm else branch, self.is_convolution)

    def _normed(self, addition: Node) -> _Residual | None:
        shortcut, branch = self._joins[addition]
        norm, activation = self._source(branch, self._is_norm), _only_user(addition)
        if norm is None or activation is None or not self._is_activation(activation):
            return None
        return _Residual(norm, addition, activation, self._source(shortcut, self._is_norm))

    # What changes

    def remove(self, norm: Node) -> None:
        norm.replace_all_uses_with(norm.all_input_nodes[0])
        self._graph.erase_node(norm)

    def fold(self, norm: Node) -> None:
        """Let the convolution (or linear layer) that feeds only this norm compute it, as in eval mode."""
        before = norm.all_input_nodes[0]
        layer, batch = self.module(before), self.module(norm)
        if not isinstance(layer, nn.Linear | _ConvNd) or not isinstance(batch, _BatchNorm):
            return
        mean, var = batch.running_mean, batch.running_var
        if _only_user(before) is norm and mean is not None and var is not None:
            scale = (batch.weight, batch.bias)
            layer.weight, bias = fuse_conv_bn_weights(layer.weight, layer.bias, mean, var, batch.eps, *scale)
            layer.bias = bias.requires_grad_()

    def widen(self, norm: Node, layer: Node) -> None:
        """Put a new norm, as wide as what `layer` gives, in the place of a LayerNorm."""
        old, width = self.module(norm), self.module(layer)
        assert isinstance(old, nn.LayerNorm) and isinstance(width, nn.Linear | _ConvNd)
        new = type(old)(width.weight.shape[0], eps=old.eps).to(width.weight)
        self._body.set_submodule(str(norm.target), new)
        self._modules[str(norm.target)] = new

    def wake(self, norm: Node) -> None:
        """Let a norm start with scale 1."""
        scale = self.module(norm)
        assert isinstance(scale, _NORMS)
        if scale.weight is not None:
            nn.init.ones_(scale.weight)

    def give_biases(self) -> None:
        """A bias of zero for every convolution that has none."""
        for node in self._graph.nodes:
            layer = self.module(node)
            if isinstance(layer, _ConvNd) and layer.bias is None:
                layer.bias = nn.Parameter(layer.weight.new_zeros(layer.out_channels))

    def silence_residuals(self) -> None:
        """Let each residual branch that ends in a convolution start as zero."""
        for node in self._last_convolutions:
            layer = self.module(node)
            assert isinstance(layer, _ConvNd)
            nn.init.zeros_(layer.weight)

    def _drop_identities(self) -> None:
        for node in self._graph.nodes:
            if isinstance(self.module(node), nn.Identity):
                self.remove(node)

    def _stop_overwriting(self) -> None:
        """No activation or addition may work in place on what another node, or autograd, still needs."""
        for node in self._graph.nodes:
            if node.all_input_nodes and not self._may_be_overwritten(node.all_input_nodes[0]):
                self._work_out_of_place(node)

    def _may_be_overwritten(self, node: Node) -> bool:
        fresh = isinstance(self.module(node), (nn.Linear, _ConvNd, *_NORMS)) or _called(node) in _ADDITIONS
        return fresh and len(node.users) == 1

    def _work_out_of_place(self, node: Node) -> None:
        module = self.module(node)
        if module is not None and self._is_activation(node) and hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]
        elif "inplace" in node.kwargs:
            node.kwargs = {**node.kwargs, "inplace": False}
        elif _called(node) == "iadd":
            node.target = operator.add


class _Tracer(fx.Tracer):
    """Layers stay modules: whatever has no parts, norms (timm's have an activation as a part), `opaque`."""

    def __init__(self, opaque: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self._opaque = opaque

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        has_parts = next(m.children(), None) is not None
        whole = not has_parts or isinstance(m, (*_NORMS, *self._opaque))
        return whole or super().is_leaf_module(m, module_qualified_name)


def _trace(body: nn.Module, placement: str) -> fx.Graph:
    """The graph of `body`, which must be the same in training and eval mode."""
    fused = _activations_within_norms(body)
    opaque = _opaque_parts(body)
    mode = body.training
    try:
        graph, other = (_Tracer(opaque).trace(body.train(training)) for training in (True, False))
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise _refusal(
            body, placement, "a network that torch.fx can trace", f"cannot be ({reason})"
        ) from error
    finally:
        body.train(mode)
    if str(graph) != str(other):
        need = "a network that torch.fx traces alike in training and eval mode"
        raise _refusal(body, placement, need, "is not")
    for node in graph.find_nodes(op="call_module"):
        if node.target in fused:
            _call_behind(node, fused[node.target])
    return graph


def _opaque_parts(body: nn.Module) -> tuple[type[nn.Module], ...]:
    """Kinds of parts without norms that timm knows torch.fx cannot enter."""
    if not type(body).__module__.startswith("timm."):
        return ()
    from timm.layers import is_notrace_module

    parts = [part for part in body.modules() if is_notrace_module(type(part))]
    return tuple({type(part) for part in parts if not any(isinstance(m, _NORMS) for m in part.modules())})


def _activations_within_norms(body: nn.Module) -> dict[str, str]:
    """Take activations out of the norms that hold them (timm's); path of norm -> path of activation."""
    fused = {}
    for path, norm in list(body.named_modules()):
        activation = getattr(norm, "act", None)
        if isinstance(norm, _NORMS) and isinstance(activation, nn.Module):
            fused[path] = f"{path}_act"
            body.set_submodule(fused[path], activation)
            norm.act = nn.Identity()
    return fused


def _call_behind(norm: Node, path: str) -> None:
    """Let the module at `path` take what `norm` gives, and everything else what that module gives."""
    with norm.graph.inserting_after(norm):
        activation = norm.graph.call_module(path, (norm,))
    norm.replace_all_uses_with(activation, delete_user_cb=lambda user: user is not activation)


def _refusal(body: nn.Module, placement: str, need: str, fact: str) -> RecipeError:
    return RecipeError(f"model.bn_placement = {placement!r} needs {need}, but {type(body).__name__} {fact}")


def _called(node: Node) -> str:
    """The name of the function or method that a node calls, `""` if it calls none."""
    if node.op == "call_method":
        return str(node.target)
    return getattr(node.target, "__name__", "") if node.op == "call_function" else ""


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None
