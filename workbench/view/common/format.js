// Numbers as text: a real minus sign, an en dash where there is no value, never NaN.

const MINUS = "−";
export const NONE = "–";

export const known = (value) => typeof value === "number" && Number.isFinite(value);

/** 0.516 -> "0.52"; -1.5 -> "−1.50". */
export const fixed = (value, digits = 2) =>
  known(value) ? (rounds(value, digits) < 0 ? MINUS : "") + Math.abs(value).toFixed(digits) : NONE;

/** +0.81, −1.13, 0.00: a signed figure. */
export const signed = (value, digits = 2) =>
  known(value) ? (rounds(value, digits) > 0 ? "+" : rounds(value, digits) < 0 ? MINUS : "") + Math.abs(value).toFixed(digits) : NONE;

const rounds = (value, digits) => Math.round(value * 10 ** digits);

/** A share in whole percent; a share above 0 that rounds to 0 is "< 1 %". */
export const percent = (share) =>
  !known(share) ? NONE : share > 0 && share < 0.005 ? "< 1 %" : `${Math.round(share * 100)} %`;

/** A setting or a reward as a user would type it: 4e-4, 0.04, 12, 1.5; at most four digits. */
export function plain(value) {
  if (!known(value)) return NONE;
  const text = value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(3).replace(/\.?0+e/, "e") : String(Number(value.toPrecision(4)));
  return text.replace(/^-/, MINUS);
}

/** 0.0001 written out, for an operand of a formula. */
export const decimal = (value) => (known(value) && value !== 0 && Math.abs(value) >= 1e-7 ? value.toFixed(8).replace(/\.?0+$/, "").replace(/^-/, MINUS) : plain(value));

/** .58 on an axis or at a line's end, where space is short. */
export const short = (value, digits = 2) => {
  if (!known(value)) return NONE;
  const text = Math.abs(value).toFixed(digits);
  const tight = text.startsWith("0.") ? text.slice(1) : text;
  return (rounds(value, digits) < 0 ? MINUS : "") + (Number(text) === 0 ? "0" : tight);
};

/** 0.8 s, 24 s, 4 min 10 s, 2 h 5 min. */
export function duration(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 10) return `${minutes} min ${Math.round(seconds % 60)} s`;
  if (minutes < 90) return `${Math.round(seconds / 60)} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

const SMALL = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
export const word = (n) => SMALL[n] ?? String(n);
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** "#4, #5 and #12". */
export const listed = (items) =>
  items.length < 2 ? items.join("") : `${items.slice(0, -1).join(", ")} and ${items[items.length - 1]}`;
