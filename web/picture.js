// From a photo to the network's input, and from its answers back into the photo: what detect.py
// does, in the same arithmetic, so that both find the same.
//
// A picture is { height, width, rgba }, rgba a Uint8ClampedArray [height, width, 4].
// Shape letters: `H W` input of the network, `D` detections at most, `M` mask side.

const MASK_THRESHOLD = 0.5; // probability from which a pixel belongs to the object
const float32 = Math.fround;

// Return the picture, as large as the input holds, in its upper left corner: `image` Uint8Array
// [1, H, W, 3], zero around it, and `sizeHW` Int32Array [2], its height and width there. `resize`
// is the description's: "detectron2" antialiases where it shrinks, "torchvision" does not.
export function fit(picture, inputHW, resize) {
  const scale = Math.min(inputHW[0] / picture.height, inputHW[1] / picture.width);
  const [height, width] = [picture.height, picture.width].map((side, axis) =>
    Math.min(Math.max(Math.floor(side * scale + 0.5), 1), inputHW[axis]),
  );
  const resized = (resize === "torchvision" ? interpolated : filtered)(picture, height, width);
  const image = new Uint8Array(inputHW[0] * inputHW[1] * 3);
  for (let y = 0; y < height; y += 1) {
    image.set(resized.subarray(y * width * 3, (y + 1) * width * 3), y * inputHW[1] * 3);
  }
  return { image, sizeHW: Int32Array.of(height, width) };
}

// Return what was found, the best first, in the picture's frame: `box` [y1, x1, y2, x2], pixel i
// covering [i, i + 1); `score`; `category`, a name; `categoryId`; and `mask` of `paste`, or null.
export function toPicture(outputs, sizeHW, picture, description) {
  const scale = [picture.height / sizeHW[0], picture.width / sizeHW[1]];
  const categories = new Map(description.categories.map((row) => [row.class, row]));
  const found = [];
  for (let row = 0; row < outputs.count[0]; row += 1) {
    const corners = outputs.boxes.subarray(4 * row, 4 * row + 4);
    const box = Array.from(corners, (place, i) => place * scale[i % 2]);
    let mask = null;
    if (outputs.masks) {
      const cells = outputs.maskSide ** 2;
      const probs = outputs.masks.subarray(cells * row, cells * (row + 1));
      mask = paste(probs, outputs.maskSide, box, picture, description.mask_convention);
    }
    const { id, name } = categories.get(outputs.classes[row]);
    found.push({ box, score: outputs.scores[row], category: name, categoryId: id, mask });
  }
  return found;
}

// Resize probabilities, Float32Array [M, M], into their box. Returns the part of the picture that
// the box touches: `bits` Uint8Array [height, width], 1 on the object, and its `height`, `width`,
// `top` and `left`. `convention` is the description's: "pixel_centres" or "torchvision".
export function paste(probs, side, box, picture, convention) {
  const axis = convention === "torchvision" ? axisOfTorchvision : axisAtCentres;
  const [y1, x1, y2, x2] = box.map(float32);
  const rows = axis(y1, y2, picture.height, side);
  const columns = axis(x1, x2, picture.width, side);
  const [height, width] = [rows.length, columns.length];
  const bits = new Uint8Array(height * width);
  const line = new Float32Array(side);
  for (let y = 0; y < height; y += 1) {
    for (let j = 0; j < side; j += 1) {
      line[j] = blend(rows, y, (cell) => probs[cell * side + j]);
    }
    for (let x = 0; x < width; x += 1) {
      bits[y * width + x] = blend(columns, x, (cell) => line[cell]) >= MASK_THRESHOLD ? 1 : 0;
    }
  }
  return { bits, height, width, top: rows.first, left: columns.first };
}

// Along an axis, each pixel sees two neighbouring cells: `cells` and `weights` have two entries for
// each of `length` pixels, the first of which is pixel `first` of the picture.
function blend({ cells, weights }, pixel, valueOf) {
  const low = float32(weights[2 * pixel] * valueOf(cells[2 * pixel]));
  return float32(low + float32(weights[2 * pixel + 1] * valueOf(cells[2 * pixel + 1])));
}

// Pixel centres, as Detectron2; a pixel more on either side fades out.
function axisAtCentres(start, end, size, side) {
  if (!(Number.isFinite(start) && Number.isFinite(end) && end > start)) return seen(0, 0);
  const first = clip(Math.floor(start) - 1, 0, size);
  const stop = Math.max(clip(Math.ceil(end) + 1, 0, size), first);
  const length = float32(end - start);
  return seen(first, stop - first, side, 0, (pixel) => {
    const part = float32(float32(first + pixel + 0.5 - start) / length);
    return float32(float32(part * side) - 0.5);
  });
}

// As torchvision: a frame of zeros around the cells, the box in whole pixels.
function axisOfTorchvision(start, end, size, side) {
  if (!(Number.isFinite(start) && Number.isFinite(end))) return seen(0, 0);
  const half = float32(float32(float32(end - start) * 0.5) * float32((side + 2) / side));
  const centre = float32(float32(end + start) * 0.5);
  const low = Math.trunc(float32(centre - half));
  const high = Math.trunc(float32(centre + half));
  const first = Math.max(low, 0);
  const stop = Math.max(Math.min(high + 1, size), first);
  const scale = float32((side + 2) / Math.max(high - low + 1, 1));
  return seen(first, stop - first, side, 1, (pixel) => {
    const place = float32(float32((first - low + pixel + 0.5) * scale) - 0.5);
    return Math.max(place, 0);
  });
}

// Say which cells each pixel sees. `placeOf` a pixel is in cells, of which `firstCell` is the first.
function seen(first, length, side, firstCell, placeOf) {
  const cells = new Int32Array(2 * length);
  const weights = new Float32Array(2 * length);
  for (let pixel = 0; pixel < length; pixel += 1) {
    const place = placeOf(pixel);
    for (const next of [0, 1]) {
      const cell = Math.floor(place) + next;
      if (cell >= firstCell && cell < firstCell + side) {
        cells[2 * pixel + next] = cell - firstCell;
        weights[2 * pixel + next] = Math.max(1 - float32(Math.abs(place - cell)), 0);
      }
    }
  }
  return { first, length, cells, weights };
}

function clip(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

// Bilinear, antialiased where it shrinks, as Pillow: columns, then rows, each in whole numbers with
// 22 bits behind the point, and rounded to 8 bits in between. Pillow 13 takes rows first for some
// tall pictures, which rounds some values to a neighbouring level.
// Source: Pillow, src/libImaging/Resample.c.
const POINT = 2 ** 22;

function filtered({ height, width, rgba }, newHeight, newWidth) {
  const across = filter(width, newWidth);
  const narrow = new Uint8Array(height * newWidth * 3);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < newWidth; x += 1) {
      const from = 4 * (y * width + across[x].first);
      weigh(across[x].weights, rgba, from, 4, narrow, 3 * (y * newWidth + x));
    }
  }
  const resized = new Uint8Array(newHeight * newWidth * 3);
  filter(height, newHeight).forEach(({ first, weights }, y) => {
    for (let x = 0; x < newWidth; x += 1) {
      const from = 3 * (first * newWidth + x);
      weigh(weights, narrow, from, 3 * newWidth, resized, 3 * (y * newWidth + x));
    }
  });
  return resized;
}

// Return, for each new pixel, the first old one that it sees, and the weights from there on.
function filter(size, newSize) {
  const scale = size / newSize;
  const reach = Math.max(scale, 1);
  return Array.from({ length: newSize }, (_, pixel) => {
    const centre = (pixel + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const stop = Math.min(Math.trunc(centre + reach + 0.5), size);
    const weights = new Float64Array(stop - first).map((_, i) =>
      Math.max(1 - Math.abs((first + i - centre + 0.5) * (1 / reach)), 0),
    );
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { first, weights: Int32Array.from(weights, (w) => Math.trunc((w / sum) * POINT + 0.5)) };
  });
}

// Three channels at `from`, a pixel `step` apart from the next, become three at `to`.
function weigh(weights, source, from, step, target, to) {
  let red = POINT / 2;
  let green = POINT / 2;
  let blue = POINT / 2;
  for (let i = 0; i < weights.length; i += 1) {
    const pixel = from + i * step;
    red += source[pixel] * weights[i];
    green += source[pixel + 1] * weights[i];
    blue += source[pixel + 2] * weights[i];
  }
  target[to] = Math.min(red >> 22, 255);
  target[to + 1] = Math.min(green >> 22, 255);
  target[to + 2] = Math.min(blue >> 22, 255);
}

// Bilinear between the four nearest pixel centres, as torchvision.
function interpolated({ height, width, rgba }, newHeight, newWidth) {
  const nearest = (size, newSize) =>
    Array.from({ length: newSize }, (_, pixel) => {
      const place = (pixel + 0.5) * (size / newSize) - 0.5;
      const low = Math.floor(place);
      const share = float32(place - low);
      return [clip(low, 0, size - 1), clip(low + 1, 0, size - 1), float32(1 - share), share];
    });
  const across = nearest(width, newWidth);
  const resized = new Uint8Array(newHeight * newWidth * 3);
  nearest(height, newHeight).forEach(([top, bottom, ofTop, ofBottom], y) => {
    across.forEach(([left, right, ofLeft, ofRight], x) => {
      for (let channel = 0; channel < 3; channel += 1) {
        const value = (row, column) => rgba[4 * (row * width + column) + channel];
        const mix = (row) =>
          float32(float32(value(row, left) * ofLeft) + float32(value(row, right) * ofRight));
        const both = float32(float32(mix(top) * ofTop) + float32(mix(bottom) * ofBottom));
        resized[3 * (y * newWidth + x) + channel] = Math.floor(float32(both + 0.5));
      }
    });
  });
  return resized;
}
