/* Draws the maps of turning_maps.py once they come into view. Without WebGL the pictures below are what there is. */
(function () {
  "use strict";
  const root = document.getElementById("turning-maps");
  const probe = document.createElement("canvas");
  if (!(probe.getContext("webgl") || probe.getContext("experimental-webgl"))) return;
  root.hidden = false;
  const given = JSON.parse(document.getElementById("turning-maps-data").textContent);
  const choices = Object.fromEntries(
    [...root.querySelectorAll("[name]")].map((control) => [control.name, control])
  );
  const place = root.querySelector(".turning-map");
  const sides = Object.keys(given.mesh);
  /* Where the eye is, and the one hemisphere that is drawn where the other would hide it. */
  const views = {
    "left": { eye: [-1, 0, 0] }, "right": { eye: [1, 0, 0] },
    "left, medial": { eye: [1, 0, 0], only: "left" }, "right, medial": { eye: [-1, 0, 0], only: "right" },
    "front": { eye: [0, 1, 0] }, "back": { eye: [0, -1, 0] },
    "top": { eye: [0, 0, 1], up: [0, 1, 0] }, "bottom": { eye: [0, 0, -1], up: [0, 1, 0] },
  };
  for (const name of Object.keys(views)) choices.view.add(new Option(name));
  const perSide = unpacked(given.mesh.left.folds, Uint8Array).length;
  choices.top.value = given.top.toFixed(3);

  function unpacked(text, Kind) {
    return new Kind(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer);
  }

  function rgb(hex) {
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  }

  /* The colour at a share of a scale whose colours lie at equal distances. */
  function colour(scale, share) {
    const at = Math.min(Math.max(share, 0), 1) * (scale.length - 1);
    const below = Math.min(Math.floor(at), scale.length - 2);
    const [from, to] = [rgb(scale[below]), rgb(scale[below + 1])];
    return from.map((part, k) => part + (to[k] - part) * (at - below));
  }

  function chosen() {
    return given.maps.find((one) => one.subject === choices.subject.value && one.name === choices.stage.value);
  }

  function regionsAt(set) {
    return set.map((at) => given.regions[at]).join(", ").replaceAll("_", " ");
  }

  /* Colours and words of every vertex, one list a hemisphere. */
  function painted() {
    const map = chosen();
    const change = map.name === "difference";
    const scale = change ? given.colours.difference : given.colours.r;
    const top = Number(choices.top.value) > 0 ? Number(choices.top.value) : given.top;
    const values = unpacked(map.values, Int16Array);
    const counts = map.counts ? unpacked(map.counts, Uint16Array) : null;
    const sets = given.region_sets[map.subject];
    const regions = sets ? unpacked(given.region_of[map.subject], Uint16Array) : null;
    const colours = [];
    const words = [];
    sides.forEach((side, s) => {
      const folds = unpacked(given.mesh[side].folds, Uint8Array);
      const mine = [];
      const said = [];
      for (let v = 0; v < perSide; v++) {
        const raw = values[s * perSide + v];
        const none = raw === given.none;
        const r = raw * given.step;
        const grey = folds[v] ? 178 : 204;
        const full = none ? [grey, grey, grey] : colour(scale, change ? (r / top + 1) / 2 : r / top);
        const shade = !none && folds[v] ? 0.88 : 1;
        mine.push("rgb(" + full.map((part) => Math.round(part * shade)).join(",") + ")");
        const at = none ? "no voxel near" : (change ? "Δr " : "r ") + (change && r > 0 ? "+" : "") + r.toFixed(3);
        const region = regions && !none ? regionsAt(sets[regions[s * perSide + v]]) : "";
        const n = counts && !none ? "mean of " + counts[s * perSide + v] : "";
        said.push([at, region, n, side + " vertex " + v].filter(Boolean).join("<br>"));
      }
      colours.push(mine);
      words.push(said);
    });
    label(scale, change, top);
    return { colours, words };
  }

  function label(scale, change, top) {
    const find = (name) => root.querySelector(".turning-scale ." + name);
    find("bar").style.background = "linear-gradient(to right," + scale.join(",") + ")";
    find("low").textContent = change ? "−" + top.toFixed(3) : "0";
    find("high").textContent = (change ? "+" : "") + top.toFixed(3);
    find("what").textContent = change ? "Δr, after − before" : "r, " + choices.stage.value;
  }

  function camera() {
    const { eye, up = [0, 0, 1], only } = views[choices.view.value];
    const distance = only ? 1.65 : 1.3;
    const named = ([x, y, z]) => ({ x, y, z });
    return { eye: named(eye.map((part) => distance * part)), up: named(up), center: { x: 0, y: 0, z: 0 } };
  }

  function drawn(side) {
    const { only = side } = views[choices.view.value];
    return side === only;
  }

  function meshes() {
    const { colours, words } = painted();
    return sides.map((side, s) => {
      const places = unpacked(given.mesh[side].places, Int16Array);
      const faces = unpacked(given.mesh[side].faces, Uint16Array);
      const every = (list, step, first) => Array.from(list.filter((_, at) => at % step === first));
      const axis = (first) => every(places, 3, first).map((steps) => steps * given.place_step_mm);
      return {
        type: "mesh3d", name: side, visible: drawn(side), x: axis(0), y: axis(1), z: axis(2),
        i: every(faces, 3, 0), j: every(faces, 3, 1), k: every(faces, 3, 2),
        vertexcolor: colours[s], text: words[s], hoverinfo: "text",
        lighting: { ambient: 0.9, diffuse: 0.2, specular: 0.05, roughness: 0.9 },
      };
    });
  }

  function draw() {
    const script = document.createElement("script");
    script.textContent = document.getElementById("turning-maps-plotly").textContent;
    document.head.append(script);
    const hidden = { visible: false };
    const layout = {
      margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", showlegend: false,
      scene: { camera: camera(), aspectmode: "data", xaxis: hidden, yaxis: hidden, zaxis: hidden, dragmode: "orbit" },
    };
    const settings = { displaylogo: false, plotlyServerURL: "", displayModeBar: "hover", responsive: true, scrollZoom: false };
    Plotly.newPlot(place, meshes(), layout, settings).then(() => { root.dataset.state = "drawn"; });
    const repaint = () => {
      const { colours, words } = painted();
      Plotly.restyle(place, { vertexcolor: colours, text: words });
      root.dataset.shown = choices.subject.value + ", " + choices.stage.value;
    };
    for (const name of ["subject", "stage", "top"]) choices[name].addEventListener("change", repaint);
    choices.view.addEventListener("change", () => {
      Plotly.update(place, { visible: sides.map(drawn) }, { "scene.camera": camera() });
    });
  }

  const seen = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) {
      seen.disconnect();
      draw();
    }
  }, { rootMargin: "200px" });
  seen.observe(root);
})();
