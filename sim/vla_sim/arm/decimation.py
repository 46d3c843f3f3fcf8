"""Meshes with few faces and small textures, drawn a tenth as slowly: LIBERO has 1.9 million faces and few pixels.

Vertices are clustered on a grid that is made coarser until few faces are left (Rossignac and Borrel 1993); those whose
surface faces another way are kept apart, or the inside of a bowl would show through; textures are stretched over the
larger faces. Only lists of faces change, which collisions do not use: the physics is the same to the bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vla_sim.panda import Doubles
from vla_sim.rendering import mujoco

_MOST_FACES = 2000
_TEXELS = 256
_SAME_PIECE = 0.15
"""Texture coordinates farther apart belong to different pieces of it."""
_FINEST_GRID, _COARSEST_GRID, _COARSER = 40, 6, 0.85

Faces = npt.NDArray[np.int64]


def decimate(model: Any) -> None:
    """Replace the faces of every large mesh of a compiled model, in place, before anything draws it."""
    is_mesh = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
    for mesh in np.unique(model.geom_dataid[is_mesh]):
        at, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        if count <= _MOST_FACES:
            continue
        first, n_vertices = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        vertices = model.mesh_vert[first : first + n_vertices].astype(np.float64)
        faces = model.mesh_face[at : at + count].astype(np.int64)
        # A mesh with textures has a vertex once for each piece of them that meets there: as one, or the seams gape.
        _, one, which = np.unique(vertices, axis=0, return_index=True, return_inverse=True)
        kept, merged = _cluster(vertices[one], which[faces])
        end = at + len(kept)
        model.mesh_face[at:end] = one[merged]
        model.mesh_facenormal[at:end] = model.mesh_facenormal[at : at + count][kept]
        if n_texels := model.mesh_texcoordnum[mesh]:
            texels = model.mesh_texcoord[model.mesh_texcoordadr[mesh] :][:n_texels]
            corners = model.mesh_facetexcoord[at : at + count].copy()
            model.mesh_facetexcoord[at:end] = _stretched(texels, corners, which[faces], kept, merged)
        model.mesh_facenum[mesh] = len(kept)


def shrink_textures(model: Any) -> None:
    """Keep every n-th texel of large textures, in place: at 128 px nobody sees them, and they fill the memory."""
    for texture in range(model.ntex):
        step = model.tex_width[texture] // _TEXELS
        if step < 2:
            continue
        first, channels = model.tex_adr[texture], model.tex_nchannel[texture]
        height, width = model.tex_height[texture], model.tex_width[texture]
        texels = model.tex_data[first : first + height * width * channels].reshape(height, width, channels)
        small = texels[::step, ::step].copy()
        model.tex_data[first : first + small.size] = small.ravel()
        model.tex_height[texture], model.tex_width[texture] = small.shape[:2]


def _cluster(vertices: Doubles, faces: Faces) -> tuple[Faces, Faces]:
    """Which faces stay, and their new corners (n, 3): in each cell of the grid, the vertex nearest to the mean."""
    low = vertices.min(0)
    extent = float((vertices.max(0) - low).max())
    facing = _facing(vertices, faces)
    grid = _FINEST_GRID
    while True:
        cell = np.floor((vertices - low) / (extent / grid + 1e-9)).astype(np.int64)
        _, cluster = np.unique(((cell[:, 0] * 64 + cell[:, 1]) * 64 + cell[:, 2]) * 8 + facing, return_inverse=True)
        size = np.bincount(cluster)
        mean = np.stack([np.bincount(cluster, vertices[:, axis]) / size for axis in range(3)], 1)
        off = ((vertices - mean[cluster]) ** 2).sum(1)
        order = np.lexsort((off, cluster))
        nearest = order[np.searchsorted(cluster[order], np.arange(len(size)))]
        corners = nearest[cluster][faces]
        a, b, c = corners.T
        kept = np.flatnonzero((a != b) & (b != c) & (a != c))
        _, one_each = np.unique(np.sort(corners[kept], axis=1), axis=0, return_index=True)
        kept = kept[np.sort(one_each)]
        if len(kept) <= _MOST_FACES or grid <= _COARSEST_GRID:
            return kept, corners[kept]
        grid = int(grid * _COARSER)


def _stretched(texels: Doubles, corners: Faces, faces: Faces, kept: Faces, merged: Faces) -> Faces:
    """(n, 3) which texel each new corner shows: that of the vertex it moved to, unless that is on another piece.

    Texels (T, 2), corners and faces (F, 3) as they were; `kept` and `merged` as `_cluster` gives them.
    """
    of_vertex = np.zeros(faces.max() + 1, np.int64)
    of_vertex[faces] = corners  # any of them where pieces meet
    there, before = of_vertex[merged], corners[kept]
    return np.where(np.linalg.norm(texels[there] - texels[before], axis=2) < _SAME_PIECE, there, before)


def _facing(vertices: Doubles, faces: Faces) -> Faces:
    """(n,) which of the eight octants the surface at each vertex faces."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normal = np.cross(b - a, c - a)
    total = np.stack(
        [sum(np.bincount(faces[:, k], normal[:, i], len(vertices)) for k in range(3)) for i in range(3)], 1
    )
    octant: Faces = (total > 0) @ np.array([1, 2, 4])
    return octant
