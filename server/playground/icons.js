/** Pictures that take the colour of the text beside them, and none of which depends on the fonts of a machine. */

const SVG = "http://www.w3.org/2000/svg";
const THUMB =
  "M7.5 11v9H4.5A1.5 1.5 0 0 1 3 18.5v-6A1.5 1.5 0 0 1 4.5 11zl3.6-7.2c1.6 0 2.7 1.2 2.7 2.7V9.5h4.9" +
  "a2 2 0 0 1 2 2.3l-1 6.5a2 2 0 0 1-2 1.7H7.5";

/** @param {boolean} isUp */
export function thumb(isUp) {
  const picture = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  picture.setAttribute("viewBox", "0 0 24 24");
  picture.setAttribute("class", isUp ? "icon" : "icon upside-down");
  picture.setAttribute("aria-hidden", "true");
  path.setAttribute("d", THUMB);
  picture.append(path);
  return picture;
}
