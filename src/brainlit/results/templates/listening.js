// Paints the row of the prediction that belongs to where the sound is. Needs `data`, of listening.py.
const sound = document.getElementById("sound"), choice = document.getElementById("subject");
const curves = [...document.querySelectorAll(".curve")], now = document.getElementById("now");
const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const words = text => { const raw = bytes(text), view = new DataView(raw.buffer);
  return Uint16Array.from({length: raw.length / 2}, (_, k) => view.getUint16(2 * k, true)); };
let paint = () => {};
if (data.maps) {
  const NOWHERE = 65535, lengths = words(data.lengths), vertices = words(data.vertices);
  const folds = bytes(data.folds), colours = bytes(data.colours), pixels = new Uint16Array(data.width * data.height);
  for (let k = 0, at = 0; k < lengths.length; at += lengths[k++]) pixels.fill(vertices[k], at, at + lengths[k]);
  const maps = data.maps.map(map => ({columns: words(map.columns), values: bytes(map.values)}));
  const canvas = document.getElementById("map").getContext("2d");
  const image = canvas.createImageData(data.width, data.height);
  paint = (subject, row) => {
    const {columns, values} = maps[subject], n = values.length / data.n_rows, out = image.data;
    for (let k = 0; k < pixels.length; k++) {
      const vertex = pixels[k];
      if (vertex === NOWHERE) continue;
      const column = columns[vertex], fold = folds[vertex], at = 4 * k;
      if (column === NOWHERE) {
        out[at] = out[at + 1] = out[at + 2] = fold ? 178 : 204;
      } else {
        const colour = 3 * (values[row * n + column] - 1), shade = fold ? 0.88 : 1;
        for (let c = 0; c < 3; c++) out[at + c] = shade * colours[colour + c];
      }
      out[at + 3] = 255;
    }
    canvas.putImageData(image, 0, 0);
  };
}
let shown = "";
const show = () => {
  const subject = choice ? Number(choice.value) : 0, seconds = sound.currentTime, length_s = data.n_rows * data.tr_s;
  const row = Math.min(Math.floor(seconds / data.tr_s), data.n_rows - 1);
  const [left, right] = data.curve_ends[subject], share = Math.min(seconds / length_s, 1);
  curves[subject].querySelector(".at").style.left = 100 * (left + share * (right - left)) + "%";
  if (shown === subject + "/" + row) return;
  shown = subject + "/" + row;
  curves.forEach((curve, k) => { curve.hidden = k !== subject; });
  now.textContent = "row " + row + ": " + (row * data.tr_s).toFixed(1) + " to " + ((row + 1) * data.tr_s).toFixed(1) + " s";
  paint(subject, row);
};
const follow = () => { show(); if (!sound.paused) requestAnimationFrame(follow); };
sound.addEventListener("play", follow);
for (const event of ["timeupdate", "seeking", "seeked"]) sound.addEventListener(event, show);
if (choice) choice.addEventListener("change", show);
curves.forEach((curve, k) => curve.querySelector("figure").addEventListener("click", event => {
  const box = event.currentTarget.getBoundingClientRect(), [left, right] = data.curve_ends[k];
  const share = ((event.clientX - box.left) / box.width - left) / (right - left);
  sound.currentTime = Math.min(Math.max(share, 0), 1) * data.n_rows * data.tr_s;
}));
show();
