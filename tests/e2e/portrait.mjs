// A camera picture for screenshots: somebody drawn with a few ellipses, as a YUV4MPEG2 file of one frame.

import { writeFileSync } from "node:fs";

const [WIDTH, HEIGHT] = [960, 720];

/** Whether the point lies in the ellipse, its middle and radii in parts of the height. */
const inside = (x, y, [middleX, middleY, radiusX, radiusY]) => ((x - middleX) / radiusX) ** 2 + ((y - middleY) / radiusY) ** 2 <= 1;

/** From back to front: colour, and the ellipse that has it. */
const shapes = ({ skin, hair, shirt, long }) => [
  [hair, [0.667, long ? 0.5 : 0.37, 0.23, long ? 0.34 : 0.2]],
  [skin, [0.667, 0.7, 0.075, 0.14]],
  [shirt, [0.667, 1.09, 0.44, 0.3]],
  [skin, [0.667, 0.46, 0.175, 0.225]],
  [hair, [0.667, 0.29, 0.19, 0.095]],
  [[50, 38, 40], [0.6, 0.45, 0.016, 0.02]],
  [[50, 38, 40], [0.734, 0.45, 0.016, 0.02]],
  [[168, 74, 76], [0.667, 0.565, 0.07, 0.045]],
  [skin, [0.667, 0.543, 0.085, 0.042]],
];

export function drawPortrait(file, look) {
  const parts = shapes(look).reverse();
  const [luma, blue, red] = [Buffer.alloc(WIDTH * HEIGHT), Buffer.alloc((WIDTH * HEIGHT) / 4), Buffer.alloc((WIDTH * HEIGHT) / 4)];
  for (let row = 0; row < HEIGHT; row++) {
    for (let column = 0; column < WIDTH; column++) {
      const [x, y] = [column / HEIGHT, row / HEIGHT];
      const [r, g, b] = parts.find(([, ellipse]) => inside(x, y, ellipse))?.[0] ?? look.wall;
      luma[row * WIDTH + column] = 16 + 0.257 * r + 0.504 * g + 0.098 * b;
      if (row % 2 || column % 2) continue;
      const at = (row / 2) * (WIDTH / 2) + column / 2;
      blue[at] = 128 - 0.148 * r - 0.291 * g + 0.439 * b;
      red[at] = 128 + 0.439 * r - 0.368 * g - 0.071 * b;
    }
  }
  const frame = Buffer.concat([Buffer.from("FRAME\n"), luma, blue, red]);
  writeFileSync(file, Buffer.concat([Buffer.from(`YUV4MPEG2 W${WIDTH} H${HEIGHT} F30:1 Ip A1:1 C420jpeg\n`), frame, frame]));
}
