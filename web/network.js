// A .tflite file of `mrcnn_tf.export` in LiteRT's runtime for browsers, as `load` of detect.py has
// it. The runtime is looked for in node_modules/, where `npm ci` puts it.
//
// Shape letters: `H W` input of the network, `D` detections at most, `M` mask side.

const RUNTIME = "./node_modules/@litertjs/core";
const DESCRIPTION = "description.json"; // in the archive at the file's end

// ZIP, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT: what each record begins with.
const END_OF_DIRECTORY = 0x06054b50; // section 4.3.16
const DIRECTORY_ENTRY = 0x02014b50; // section 4.3.12
const LOCAL_HEADER = 0x04034b50; // section 4.3.7

let runtime; // a promise of the module, from the first network on

// Return a network that is ready to run: `inputHW` [H, W]; `description`, see docs/edge.md; `run`;
// and `close`, which frees its memory. `bytes` is a Uint8Array, `name` the file's, for messages.
// Throws an Error that says in a sentence what is wrong.
export async function load(bytes, name) {
  if (/\.onnx$/i.test(name)) {
    throw new Error(`${name} is an ONNX file; this page runs those of --format=litert.`);
  }
  if (bytes.length < 8 || String.fromCharCode(...bytes.subarray(4, 8)) !== "TFL3") {
    throw new Error(`${name} is not a LiteRT file (.tflite).`);
  }
  const description = describe(bytes, name);
  runtime ??= start();
  const { loadAndCompile, Tensor } = await runtime.catch((error) => {
    runtime = undefined;
    throw error;
  });
  let model;
  try {
    model = await loadAndCompile(bytes, { accelerator: "wasm" });
  } catch (error) {
    throw new Error(`${name} is damaged, or needs a newer runtime: ${told(error)}`);
  }
  const [height, width] = description.input_size;

  // Run: `image` Uint8Array [1, H, W, 3] and `sizeHW` Int32Array [2] of `fit`. Returns `boxes`
  // Float32Array [D, (y1, x1, y2, x2)] in pixels of the input, `classes` Int32Array [D], `scores`
  // Float32Array [D], `count` Int32Array [1] and, of networks with masks, `masks` Float32Array
  // [D, M, M] and `maskSide`, M.
  async function run(image, sizeHW) {
    const inputs = {
      image: new Tensor(image, [1, height, width, 3]),
      image_size: new Tensor(sizeHW, [2]),
    };
    try {
      const outputs = {};
      for (const [output, tensor] of Object.entries(await model.run(inputs))) {
        outputs[output] = tensor.toTypedArray().slice(); // not a view of the runtime's memory
        tensor.delete();
      }
      if (outputs.masks) {
        outputs.maskSide = Math.sqrt(outputs.masks.length / outputs.scores.length);
      }
      return outputs;
    } finally {
      Object.values(inputs).forEach((tensor) => tensor.delete());
    }
  }

  return { inputHW: [height, width], description, run, close: () => model.delete() };
}

async function start() {
  try {
    const module = await import(`${RUNTIME}/dist/index.js`);
    await module.loadLiteRt(`${RUNTIME}/wasm/`);
    return module;
  } catch (error) {
    throw new Error(
      `LiteRT's runtime does not start; is it in node_modules/, where npm ci puts it? ${told(error)}`,
    );
  }
}

// Return the description, which is JSON in the archive at the end of a file.
function describe(bytes, name) {
  const refused = new Error(`${name} is damaged, or was not written by mrcnn_tf.export.`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const utf8 = new TextDecoder();
  try {
    let end = bytes.length - 22; // the record has so many bytes, and a comment of up to 64 KiB
    while (view.getUint32(end, true) !== END_OF_DIRECTORY) end -= 1;
    let entry = view.getUint32(end + 16, true);
    for (let left = view.getUint16(end + 10, true); left > 0; left -= 1) {
      if (view.getUint32(entry, true) !== DIRECTORY_ENTRY) throw refused;
      const method = view.getUint16(entry + 10, true);
      const size = view.getUint32(entry + 20, true);
      const lengths = [28, 30, 32].map((place) => view.getUint16(entry + place, true));
      const local = view.getUint32(entry + 42, true);
      const text = utf8.decode(bytes.subarray(entry + 46, entry + 46 + lengths[0]));
      if (text === DESCRIPTION) {
        // Stored as it is, which is what the export does.
        if (method !== 0 || view.getUint32(local, true) !== LOCAL_HEADER) throw refused;
        const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
        return JSON.parse(utf8.decode(bytes.subarray(start, start + size)));
      }
      entry += 46 + lengths[0] + lengths[1] + lengths[2];
    }
  } catch {
    throw refused; // a place outside of the file, or no JSON
  }
  throw refused;
}

function told(error) {
  return String(error?.message ?? error).split("\n")[0];
}
