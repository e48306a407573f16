"""Small networks side by side, and the protocols of continual learning."""

import io
import math
from functools import partial
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from torch import nn

from kancourse.elephant import elephant, elephant_slope
from kancourse.kan import KANLinear, naive_kan_linear
from kancourse.lab.continual import ManyAdam, ManyHidden, ManyKAN, edit, tangent_row
from kancourse.lab.continual_digits import TASKS, accuracies, load_images, split_digits
from kancourse.lab.continual_tasks import (
    average_forgetting,
    choose_rate,
    jointly,
    mse,
    one_after_another,
    peaks,
    sine,
    stream_sine,
)
from kancourse.lesson.answers_elephant import hidden_kernel

LRS, SEEDS = [2.5e-4, 1e-3], [0, 1]
ROWS = [lr for lr in LRS for _ in SEEDS]  # a learning rate per run
RUNS = SEEDS * len(LRS)  # a seed per run


# --- networks side by side ---


def test_every_run_is_the_network_it_would_be_alone() -> None:
    x = torch.randn(6, 3)
    many = ManyHidden([4, 7, 4], 3, 2, width=5, activation=torch.tanh)
    linear, out = nn.Linear(3, 5), nn.Linear(5, 2, bias=False)
    for run in range(3):
        linear.load_state_dict({"weight": many.w_in[run].T, "bias": many.bias[run, 0]})
        out.load_state_dict({"weight": many.w_out[run].T})
        torch.testing.assert_close(many(x)[run], out(torch.tanh(linear(x))))
    y = many(x)
    torch.testing.assert_close(y[0], y[2])  # of one seed
    assert not torch.allclose(y[0], y[1])
    torch.testing.assert_close(many(x.expand(3, 6, 3)), y)
    for weight, bound in ((many.w_in, 3**-0.5), (many.bias, 3**-0.5), (many.w_out, 5**-0.5)):
        assert float(weight.detach().abs().max()) <= bound
    spread = ManyHidden([0, 1], width=201, bias_std=0.5).bias.detach()
    assert float(spread[1, 0].std()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("base", [False, True])
def test_every_run_of_a_kan_is_a_kan_layer(base: bool) -> None:
    many = ManyKAN([0, 3], (4, 2, 3), grid_size=6, grid_range=(-1.5, 1.5), base=base, noise=0.3)
    x = torch.rand(7, 4) * 3 - 1.5
    for run in range(2):
        y = x
        for number, (n_in, n_out) in enumerate(((4, 2), (2, 3))):
            layer = KANLinear(n_in, n_out, grid_size=6, grid_range=(-1.5, 1.5))
            layer.spline_weight.data = many.coefficients[number][run].T.reshape(n_out, n_in, 9).contiguous()
            layer.base_weight.data = many.bases[number][run].T.contiguous() if base else torch.zeros(n_out, n_in)
            y = naive_kan_linear(y, layer)
            assert float(y.detach().abs().max()) < 1.5, "or the next layer leaves its grid, and tangents matter"
        torch.testing.assert_close(many(x)[run], y, rtol=1e-4, atol=1e-5)


def test_each_run_is_trained_as_by_adam_alone() -> None:
    x, y = torch.randn(8, 2), torch.randn(8)
    many = ManyHidden([3, 5], 2, width=6, activation=torch.tanh)
    optimizer = ManyAdam(many, [1e-2, 3e-3])
    alone = [[p[run].detach().clone().requires_grad_() for p in many.parameters()] for run in range(2)]
    for _ in range(5):
        optimizer.step((many(x)[..., 0] - y).square().mean(-1))
    for run, lr in enumerate((1e-2, 3e-3)):
        w_in, bias, w_out = alone[run]
        adam = torch.optim.Adam(alone[run], lr=lr)
        for _ in range(5):
            adam.zero_grad()
            ((torch.tanh(x @ w_in + bias) @ w_out)[:, 0] - y).square().mean().backward()
            adam.step()
        for one, other in zip(alone[run], many.parameters(), strict=True):
            torch.testing.assert_close(one, other[run], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="3 learning rates for 2 networks"):
        ManyAdam(many, [1e-2] * 3)


def test_the_tangent_kernel_is_its_formula_and_predicts_a_small_step() -> None:
    act, slope = partial(elephant, a=0.5), partial(elephant_slope, a=0.5)
    net = ManyHidden([0, 1], 2, width=40, activation=act).double()
    x, x_t = torch.randn(9, 2).double(), torch.randn(1, 2).double()
    row = tangent_row(net, x, x_t)
    for run in range(2):
        w_in, bias, w_out = (p[run].detach() for p in net.parameters())
        z, z_t = x @ w_in + bias, x_t @ w_in + bias
        expected = act(z) @ act(z_t)[0] + (x @ x_t[0] + 1) * ((slope(z) * slope(z_t)) @ w_out[:, 0].square())
        torch.testing.assert_close(row[run], expected)
    before = net(x)[..., 0].detach()
    miss, eta = net(x_t)[:, 0, 0] - 0.7, 1e-7
    for p, g in zip(net.parameters(), torch.autograd.grad((miss**2 / 2).sum(), list(net.parameters())), strict=True):
        p.data -= eta * g
    torch.testing.assert_close((net(x)[..., 0] - before) / eta, -miss[:, None] * row, rtol=1e-4, atol=1e-4)


def test_an_edit_moves_the_point_and_with_narrow_bumps_little_else() -> None:
    x, x_t = torch.linspace(-2, 2, 41)[:, None], torch.tensor([[1.0]])
    moved = {}
    for name, options in (("elephant", {"activation": partial(elephant, a=0.08), "bias_std": 1.28}), ("relu", {})):
        net = ManyHidden([0, 1], width=300, **options)
        before = net(x)[..., 0].detach()
        edit(net, x_t, 2.0)
        assert (net(x_t)[:, 0, 0] - 2).abs().max() < 0.05
        change = (net(x)[..., 0] - before).abs().detach()
        moved[name] = float(change[:, (x[:, 0] - 1).abs() > 0.5].mean())
    assert moved["elephant"] < 0.2 * moved["relu"]


# --- protocols ---


def test_streams_and_peaks_are_what_they_say() -> None:
    x, y = sine(200)
    assert (float(x[0]), float(x[-1]), len(y)) == (0, 2, 200)
    torch.testing.assert_close(y[50], torch.sin(math.pi * x[50, 0]))
    line = peaks(1, n_points=100)
    assert [len(task.x) for task in line] == [100] * 5
    assert bool((torch.cat([task.x for task in line]).diff(dim=0) > 0).all()), "from left to right, no point twice"
    assert [round(float(task.x[task.y.argmax(), 0]), 1) for task in line] == [-0.8, -0.4, 0, 0.4, 0.8]
    assert all(0.98 < float(task.y.max()) <= 1.001 for task in line)
    plane = peaks(2, n_points=100)
    assert [task.x.shape for task in plane] == [(100, 2)] * 4
    assert all(float(task.y.max()) > 0.8 for task in plane)
    with pytest.raises(ValueError, match="peaks in 1 or 2 dimensions, got 3"):
        peaks(3)


def test_the_sine_is_kept_by_narrow_spread_elephants_only() -> None:
    seen = []
    narrow = {"activation": partial(elephant, a=0.08), "bias_std": 1.28}
    arms = {"narrow": narrow, "wide": narrow | {"activation": elephant}}
    error = {}
    for name, options in arms.items():
        error[name] = stream_sine(ManyHidden([0, 1], **options), [2.5e-4] * 2, n_points=150, on_point=seen.append)
    assert float(error["narrow"].max()) < 0.04
    assert float(error["wide"].min()) > 0.25
    assert seen == 2 * list(range(1, 151))


def test_one_spline_forgets_nothing_and_a_base_path_makes_it_forget() -> None:
    tasks = peaks(1, n_points=30)
    errors = {}
    for base in (False, True):
        net = ManyKAN([0, 1], grid_size=40, base=base)
        rows = one_after_another(net, [0.03, 0.03], tasks, n_steps=150)
        assert rows.shape == (2, 5, 5)
        torch.testing.assert_close(rows[:, -1].mean(1), torch.stack([mse(net, t) for t in tasks], 1).mean(1).detach())
        errors[base] = float(rows[:, -1].mean())
    assert errors[False] < 3e-3 < 1e-2 < errors[True]
    assert float(jointly(ManyKAN([0, 1], grid_size=40, base=True), [0.03] * 2, tasks, n_steps=150).mean()) < 3e-3


def test_the_rate_is_chosen_on_seeds_that_are_not_scored() -> None:
    #                     1e-3: sweep, sweep, scored, scored       1e-2
    scores = torch.tensor([0.5, 0.6, 0.1, 0.1, 0.4, 0.3, 0.9, 0.8])
    assert choose_rate(scores, [1e-3, 1e-2]) == (1e-2, [6, 7])
    assert choose_rate(scores, [1e-3, 1e-2], highest=True) == (1e-3, [2, 3])
    scores[4] = math.nan
    assert choose_rate(scores, [1e-3, 1e-2], n_sweep=1) == (1e-3, [1, 2, 3])


def test_average_forgetting_by_hand() -> None:
    scores = torch.tensor([[0.9, 0.0, 0.0], [0.6, 0.8, 0.0], [0.7, 0.2, 1.0]])
    assert float(average_forgetting(scores)) == pytest.approx(((0.9 - 0.7) + (0.8 - 0.2)) / 2)
    assert average_forgetting(scores.expand(4, 3, 3)).shape == (4,)


# --- digits ---


def test_the_digits_are_scikit_learns_each_once() -> None:
    from sklearn.datasets import load_digits

    images, theirs = load_images(), load_digits()
    assert (len(images.train_x), len(images.test_x), images.train_x.size(1)) == (1438, 359, 64)
    ours = torch.cat((images.train_x, images.test_x)) * 8 + 8
    ours = torch.cat((ours, torch.cat((images.train_y, images.test_y))[:, None]), dim=1)
    rows = torch.cat((torch.tensor(theirs.data), torch.tensor(theirs.target)[:, None]), dim=1)
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, rows.tolist()))
    with pytest.raises(ValueError, match="unknown images 'cifar'; known: digits, mnist"):
        load_images("cifar")


def test_one_pass_over_the_digits_in_order() -> None:
    images = load_images()
    net = ManyHidden([0, 1], 64, 10, width=50)
    scores = split_digits(net, [2e-3, 2e-3], images, seeds=[0, 1], batch_size=8)
    assert scores.shape == (2, 5, 5)
    torch.testing.assert_close(scores[:, -1], accuracies(net, images))
    assert float(scores[:, -1, :3].max()) < 0.3, "a ReLU network has forgotten the first pairs"
    assert float(scores.diagonal(dim1=1, dim2=2)[:, :4].min()) > 0.8, "each of them was known when it was new"
    assert float(scores[:, 0, 1:].max()) == 0, "nobody can guess a digit that was never shown"
    mixed = ManyHidden([0], 64, 10, width=50)
    assert float(split_digits(mixed, [1e-3], images, seeds=[0], batch_size=8, shuffled=True)[0, -1].mean()) > 0.7
    assert sorted(digit for pair in TASKS for digit in pair) == list(range(10))


def test_mnist_is_read_from_parquet_files_of_the_hubs_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KANCOURSE_DATA", str(tmp_path))
    folder = tmp_path / "mnist" / "mnist"
    folder.mkdir(parents=True)
    for split, labels in (("train", [5, 0, 4]), ("test", [7, 2])):
        pictures = []
        for label in labels:
            buffer = io.BytesIO()
            Image.new("L", (28, 28), color=20 * label).save(buffer, format="PNG")
            pictures.append({"bytes": buffer.getvalue(), "path": None})
        table = pyarrow.table({"image": pictures, "label": labels})
        pyarrow.parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    load_images.cache_clear()
    images = load_images("mnist")
    assert images.train_x.shape == (3, 784)
    assert (images.train_y.tolist(), images.test_y.tolist()) == ([5, 0, 4], [7, 2])
    assert float(images.test_x[0, 0]) == pytest.approx(140 / 127.5 - 1)
    load_images.cache_clear()


def test_without_a_network_mnist_says_what_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def fail(*args: object, **options: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setenv("KANCOURSE_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "load_dataset", fail)
    load_images.cache_clear()
    with pytest.raises(ConnectionError, match=r"could not be fetched \(no route\); 'digits' needs no network"):
        load_images("mnist")


def test_the_answer_about_the_kernel_is_the_kernel() -> None:
    net = ManyHidden([0], 2, width=30, activation=partial(elephant, a=0.4)).double()
    x, x_t = torch.randn(6, 2).double(), torch.randn(2).double()
    w_in, bias, w_out = (p[0].detach() for p in net.parameters())
    z, z_t = x @ w_in + bias[0], x_t @ w_in + bias[0]
    heights, slopes = ([fn(v, 0.4) for v in (z, z_t)] for fn in (elephant, elephant_slope))
    torch.testing.assert_close(hidden_kernel(x, x_t, *heights, *slopes, w_out[:, 0]), tangent_row(net, x, x_t[None])[0])
