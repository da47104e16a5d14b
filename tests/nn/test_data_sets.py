"""Generated data against their densities, and files as they are."""

import gzip
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets as others

import node_jax as nj

KEY = jax.random.key(0)
DENSITIES = {
    "circles": nj.datasets.Circles(),
    "moons": nj.datasets.Moons(),
    "gaussians": nj.datasets.EightGaussians(),
    "checkerboard": nj.datasets.Checkerboard(),
}


def mean_log_prob(density, points):
    return float(jnp.mean(jax.vmap(density.log_prob)(points)))


@pytest.mark.parametrize("name", DENSITIES)
def test_density_integrates_to_one_and_samples_have_its_entropy(name):
    density = DENSITIES[name]
    axis = jnp.linspace(-6.0, 6.0, 401)
    total = sum(
        float(jnp.sum(jnp.exp(jax.vmap(lambda x, y=y: density.log_prob(jnp.stack([x, y])))(axis)))) for y in axis[::2]
    )
    np.testing.assert_allclose(total * (axis[1] - axis[0]) ** 2 * 2, 1.0, atol=2e-2 if name == "checkerboard" else 1e-6)
    points = density.sample(KEY, (20_000,))
    np.testing.assert_allclose(mean_log_prob(density, points), -density.entropy(6.0, 300), atol=0.03)


@pytest.mark.parametrize(
    ("density", "points"),
    [
        (nj.datasets.Circles(0.06, 0.5), others.make_circles(5000, noise=0.06, factor=0.5, random_state=0)[0]),
        (nj.datasets.Moons(0.1), others.make_moons(5000, noise=0.1, random_state=0)[0]),
    ],
)
def test_points_of_scikit_learn_have_the_same_density(density, points):
    np.testing.assert_allclose(mean_log_prob(density, jnp.asarray(points)), -density.entropy(6.0, 300), atol=0.05)


def test_density_of_circles_has_a_gradient_at_their_centre():
    assert np.isfinite(jax.grad(nj.datasets.Circles(0.3).log_prob)(jnp.zeros(2))).all()


def test_spirals_are_seen_where_they_are():
    data = nj.datasets.spirals(200, points=30, noise=0.0, key=KEY)
    step = data.grid[1]
    index = jnp.round(data.ts / step).astype(int)
    np.testing.assert_allclose(data.ys, jnp.take_along_axis(data.truth, index[:, :, None], axis=1), atol=1e-12)
    assert int(index.max()) < 100
    assert bool(jnp.all(jnp.diff(data.ts, axis=1) > 0))
    assert int(jnp.sum(data.clockwise)) == 100
    noisy = nj.datasets.spirals(200, points=30, noise=0.1, key=KEY)
    np.testing.assert_allclose(jnp.std(noisy.ys - data.ys), 0.1, rtol=0.05)
    turn = jnp.diff(
        jnp.unwrap(
            jnp.arctan2(data.truth[..., 1], data.truth[..., 0] - jnp.where(data.clockwise, -5.0, 5.0)[:, None]), axis=1
        )
    )
    assert bool(jnp.all((turn < 0) == data.clockwise[:, None]))
    with pytest.raises(ValueError, match="points must be at most 100"):
        nj.datasets.spirals(2, points=101, key=KEY)


def test_windows_without_points_behind_them_reach_to_the_end_of_a_spiral():
    data = nj.datasets.spirals(200, points=30, beyond=False, key=KEY)
    there = jnp.isfinite(data.truth).all(axis=2).sum(axis=1)
    assert 100 <= int(there.min()) < 120 < 180 < int(there.max()) <= 200
    assert bool(jnp.isfinite(data.ys).all())


def test_spheres_are_nested():
    points, labels = nj.datasets.nested_spheres(4000, dim=3, key=KEY)
    radii = jnp.linalg.norm(points, axis=1)
    assert float(radii[labels == 0].max()) < 0.5
    assert float(radii[labels == 1].min()) > 1.0
    assert float(radii.max()) < 1.5
    np.testing.assert_allclose(jnp.mean(labels), 0.75, atol=0.03)


def test_series_are_padded_with_their_last_time_and_nan_is_missing():
    ts, ys, mask = nj.datasets.pad([([0, 1, 2], [[1.0, np.nan], [2.0, 3.0], [4.0, 5.0]]), ([5.0], [[6.0, 7.0]])])
    np.testing.assert_array_equal(ts, [[0, 1, 2], [5, 5, 5]])
    np.testing.assert_array_equal(mask, [[[1, 0], [1, 1], [1, 1]], [[1, 1], [0, 0], [0, 0]]])
    np.testing.assert_array_equal(ys[0, 0], [1.0, 0.0])
    masked = nj.datasets.pad([([0.0, 1.0], np.ma.array([1, 2], mask=[False, True]))])
    np.testing.assert_array_equal(masked[2][0, :, 0], [True, False])
    for series, word in (
        ([], "at least one pair"),
        ([([0.0], [1.0]), ([0.0, 1.0], [1.0])], r"series\[1\] must have shapes"),
        ([([0.0], [[1.0, 2.0]]), ([0.0], [1.0])], r"series\[1\] must have 2 values at each time"),
        ([([0.0, 1.0, 0.5], [1.0, 2.0, 3.0])], r"series\[0\]: times must be sorted, got ts\[2\]=0.5 after ts\[1\]=1.0"),
        ([([0.0], [1.0j])], r"series\[0\]: ys must be real numbers, got dtype complex128"),
        ([(np.array(["2020"], "M8[Y]"), [1.0])], r"series\[0\]: ts must be real numbers, got dtype datetime64"),
        ([([0.0], [1.0]), ([np.nan], [1.0])], r"series\[1\]: times must be finite, got ts\[0\]=nan"),
        ([([0.0, np.inf], [1.0, 2.0])], r"series\[0\]: times must be finite, got ts\[1\]=inf"),
    ):
        with pytest.raises(ValueError, match=word):
            nj.datasets.pad(series)


def test_digits_are_those_of_scikit_learn():
    images = nj.datasets.digits()
    assert images.x.shape == (1797, 1, 8, 8)
    assert images.x.max() == 1.0
    assert images.labels[:3].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("ending", "pack"), [("", bytes), (".gz", gzip.compress)])
def test_idx_files_are_read_plain_and_compressed(ending, pack, tmp_path):
    pixels = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    head = struct.pack(">BBBBiii", 0, 0, 8, 3, 2, 3, 4)
    (tmp_path / f"t10k-images-idx3-ubyte{ending}").write_bytes(pack(head + pixels.tobytes()))
    (tmp_path / f"t10k-labels-idx1-ubyte{ending}").write_bytes(pack(struct.pack(">BBBBiBB", 0, 0, 8, 1, 2, 7, 1)))
    images = nj.datasets.idx(tmp_path, "t10k")
    np.testing.assert_allclose(images.x[:, 0], pixels / 255.0, rtol=1e-6)
    assert images.labels.tolist() == [7, 1]
    with pytest.raises(FileNotFoundError, match="train-images-idx3"):
        nj.datasets.idx(tmp_path)
    (tmp_path / f"t10k-labels-idx1-ubyte{ending}").write_bytes(pack(head[:10]))
    with pytest.raises(ValueError, match="is no IDX file"):
        nj.datasets.idx(tmp_path, "t10k")
    whole = gzip.compress(head)
    (tmp_path / "cut-images-idx3-ubyte.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a complete gzip file"):
        nj.datasets.idx(tmp_path, "cut")
    (tmp_path / f"t10k-labels-idx1-ubyte{ending}").write_bytes(pack(head + b"123"))
    with pytest.raises(ValueError, match="must hold 24 values"):
        nj.datasets.idx(tmp_path, "t10k")
