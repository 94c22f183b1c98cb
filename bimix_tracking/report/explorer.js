"use strict";
// The mixture explorer: the fitted laws of explorer.py, evaluated here. Names are only ever set as text.
(() => {
  const begun = performance.now();
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const root = document.getElementById("explorer");
  const count = data.domains.length;
  const words = data.words;

  // --- the laws: log L at shares r and log u = log(s / s0), each from its page script in bimix_tracking/laws ---
  const logAddExp = (a, b) => {
    const most = Math.max(a, b);
    return most === -Infinity ? most : most + Math.log1p(Math.exp(-Math.abs(a - b)));
  };
  const power = (logBeta, logB, logC, logU) => logAddExp(logB - Math.exp(logBeta) * logU, logC);
  const laws = {};
  /* the laws' page scripts */

  const half = (bits) => {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  };
  // Decoded when first needed: the page is there at once.
  const drawn = (part) => {
    if (!part.values) {
      const bytes = atob(part.drawn);
      const size = part.theta.length;
      part.values = new Float64Array(data.replicates * size);
      for (let k = 0; k < part.values.length; k++) {
        part.values[k] = part.theta[k % size] + half(bytes.charCodeAt(2 * k) | (bytes.charCodeAt(2 * k + 1) << 8));
      }
      part.drawn = null;
    }
    return part.values;
  };

  // What all runs have in common at a checkpoint: interpolated in log s, 0 beyond the knots, of which the ends are 0.
  const levelAt = (levels, tokens) => {
    if (!levels.length) return 0;
    const [at, off] = levels;
    const last = at.length - 1;
    if (tokens < at[0] / (1 + 1e-6) || tokens > at[last] * (1 + 1e-6)) return 0;
    if (tokens <= at[0]) return off[0];
    let k = 1;
    while (k < last && tokens > at[k]) k++;
    if (tokens >= at[last]) return off[last];
    const part = (Math.log(tokens) - Math.log(at[k - 1])) / (Math.log(at[k]) - Math.log(at[k - 1]));
    return off[k - 1] + part * (off[k] - off[k - 1]);
  };

  // A model size has its own schedule and level: the law is of the reference's tokens, at the same progress, times e^δ.
  const sizeNow = () => data.sizes[state.size];
  const reference = (tokens) => tokens / sizeNow().ratio;
  // As levels.raised: interpolated in log s, beyond the knots that of the first and the last.
  const raised = (place, tokens) => {
    const [at, off] = sizeNow().raised[place];
    if (!at.length) return 0;
    const last = at.length - 1;
    if (tokens <= at[0]) return off[0];
    if (tokens >= at[last]) return off[last];
    let k = 1;
    while (tokens > at[k]) k++;
    const part = (Math.log(tokens) - Math.log(at[k - 1])) / (Math.log(at[k]) - Math.log(at[k - 1]));
    return off[k - 1] + part * (off[k] - off[k - 1]);
  };
  const level = (place, tokens) => levelAt(data.levels[place], reference(tokens)) + raised(place, tokens);

  const predictOne = (place, shares, tokens) => {
    const own = data.targets[place];
    const only = data.volumes[place];
    const volume = reference(tokens);
    if (only !== null && Math.max(volume / only, only / volume) > data.sameVolume) return NaN;
    let total = 0;
    for (const law of data.laws) {
      const part = law.targets[place];
      if (!part) continue;
      if (!part.theta) return NaN;
      if (part.only !== undefined && Math.abs(shares[own] - part.only) > 1e-8 + 1e-6 * Math.abs(part.only)) return NaN;
      total += part.weight * Math.exp(laws[law.law](part.theta, 0, shares, own, Math.log(volume / law.scale), law.floor));
    }
    return total * Math.exp(level(place, tokens));
  };
  const predict = (shares, tokens) => data.targets.map((_, place) => predictOne(place, shares, tokens));

  const predictDrawn = (place, shares, tokens) => {
    const own = data.targets[place];
    const result = new Float64Array(data.replicates);
    for (const law of data.laws) {
      const part = law.targets[place];
      if (!part) continue;
      if (!part.theta) return result.fill(NaN);
      const values = drawn(part);
      const logU = Math.log(reference(tokens) / law.scale);
      for (let b = 0; b < data.replicates; b++) {
        result[b] += part.weight * Math.exp(laws[law.law](values, b * part.theta.length, shares, own, logU, law.floor));
      }
    }
    const times = Math.exp(level(place, tokens));
    return result.map((value) => value * times);
  };

  const quantile = (values, q) => {
    const sorted = values.filter((value) => !Number.isNaN(value)).sort();
    if (!sorted.length) return NaN;
    const at = q * (sorted.length - 1);
    const below = Math.floor(at);
    return sorted[below] + (at - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
  };
  // As Replicates.sides: quantiles of the deviations, widened, in quadrature with what else it may be off.
  const sides = (off, one, variance) => [-1, 1].map((side) => {
    const end = quantile(off, side < 0 ? 0.05 : 0.95) - quantile(off, 0.5);
    return side * Math.hypot(one.wider * end, one.times * Math.sqrt(variance));
  });
  // As Bridge.variance: what the level of the model size adds to a weighted sum, whose terms are w L by target.
  const levelVariance = (terms, ofRun) => {
    const size = sizeNow();
    const over = (each) => terms.reduce((sum, term, place) => sum + (term ? term * each[place] : 0), 0);
    const beyond = over(size.error) ** 2;
    if (!size.runs) return beyond;
    const each = data.anchors.map(over);
    const mean = each.reduce((sum, one) => sum + one, 0) / Math.max(each.length, 1);
    const spread = each.reduce((sum, one) => sum + (one - mean) ** 2, 0);
    const ofAnchor = (data.prior * ofRun + spread) / (data.prior + Math.max(each.length - 1, 0));
    return ofAnchor / size.runs + beyond;
  };
  // As Replicates.interval: beyond the tokens observed it grows.
  const ofLoss = (one, tokens, terms) =>
    one.each + (one.rate * Math.max(0, Math.log(reference(tokens) / data.observed[1]))) ** 2 + levelVariance(terms, one.ofRun);
  const intervalOf = (place, centre, values) => {
    const off = values.map((value) => Math.log(value) - Math.log(centre));
    const one = sizeNow().sure.targets[place];
    const terms = data.targets.map((_, other) => (other === place ? centre : 0));
    return sides(off, one, ofLoss(one, state.tokens, terms) / centre ** 2).map((side) => centre * Math.exp(side));
  };
  // As Link.value: a working loss in the target's own unit. Laws, intervals and sums are of working losses.
  const valueOf = (place, loss) => {
    const link = data.links[place];
    if (!link) return loss;
    const scaled = link.centre - Math.log(loss) / link.rate;
    if (link.kind === "accuracy") {
      const most = Math.log((1 - link.edge) / link.edge);
      const inner = Math.min(Math.max(scaled, -most), most);
      const q = 1 / (1 + Math.exp(-inner)) + (scaled - inner) * link.edge * (1 - link.edge);
      return Math.min(Math.max(link.chance + (1 - link.chance) * q, 0), 1);
    }
    return link.rising ? scaled : -scaled;
  };
  const valuesOf = (place, ends) => {
    const values = ends.map((end) => valueOf(place, end));
    return data.links[place] && data.links[place].rising ? values.reverse() : values;
  };
  // As TargetGuard.limit; a hair beyond it is the rounding of an optimum that is at it.
  const brokenBy = (guard, value, reference) => {
    const limit = reference + guard.amount * (guard.relative ? Math.abs(reference) : 1);
    return (guard.rising ? limit - value : value - limit) > 1e-6 * Math.max(Math.abs(limit), 1e-3);
  };
  const sumOf = (losses) => losses.reduce((sum, loss, place) => sum + (data.weights[place] > 0 ? data.weights[place] * loss : 0), 0);
  const sumsDrawn = (byTarget) => {
    const sums = new Float64Array(data.replicates);
    byTarget.forEach((values, place) => {
      if (data.weights[place] > 0) values.forEach((value, b) => { sums[b] += data.weights[place] * value; });
    });
    return sums;
  };
  const around = (centre, values, variance) =>
    sides(values.map((value) => value - centre), sizeNow().sure.sum, variance).map((side) => centre + side);
  // As uncertainty: the form error of a difference grows with the distance, and the chosen mixture looks better than it is.
  const ofGain = (gain, values) => {
    const distance = state.shares.reduce((sum, share, i) => sum + Math.abs(share - data.reference[i]), 0) / 2;
    const chosen = state.size === data.size && state.shares.every((share, i) => Math.abs(share - data.presets[0].shares[i]) < 1e-9);
    const [low, high] = around(gain, values, sizeNow().sure.sum.apart * distance);
    return chosen ? [low - sizeNow().sure.optimism, Math.max(high - sizeNow().sure.optimism, gain)] : [low, high];
  };

  // --- the page ---
  const state = { shares: [...data.presets[0].shares], tokens: data.tokens, size: data.size };
  const at = (selector) => root.querySelector(selector);
  const rows = [...root.querySelectorAll("tr[data-domain]")].map((row) => ({
    slider: row.querySelector("input[type=range]"),
    number: row.querySelector("input[type=number]"),
    hold: row.querySelector("input[type=checkbox]"),
    loss: row.querySelector(".loss"),
    interval: row.querySelector(".interval"),
    change: row.querySelector(".change"),
  }));
  const outside = new Map([...root.querySelectorAll("tr[data-target]")].map((row) => [Number(row.dataset.target), {
    loss: row.querySelector(".value"),
    interval: row.querySelector(".ends"),
    change: row.querySelector(".shift"),
  }]));
  const preset = at("#preset");
  const volume = at("#volume");
  const size = at("#model-size");
  const yaml = at("#yaml");

  const minus = (text) => text.replace("-", "\u2212");
  const nats = (value) => (Number.isFinite(value) ? minus(value.toFixed(4).replace(/^-(0\.0+)$/, "$1")) : "\u2013");
  const digits = (value) => (Number.isFinite(value) ? minus(String(Number(value.toPrecision(4)))) : "\u2013");
  const points = (value) => filled(words.points, { points: minus(value.toFixed(1).replace(/^-(0\.0)$/, "$1")) });
  // A difference of the objective in its unit, as Recommendation.number and amount.
  const number = (value) => {
    if (data.unit === "accuracy") return points(100 * value);
    return data.unit === "weighted units" ? digits(value) : nats(value);
  };
  const amount = (value) => filled(words.amount, { value: number(value) });
  // A value, or a difference of two, as Link.shown and shown_change.
  const shown = (place, value) => {
    const link = data.links[place];
    if (!link || !Number.isFinite(value)) return nats(value);
    return link.kind === "accuracy" ? filled(words.percent, { share: (100 * value).toFixed(1) }) : digits(value);
  };
  const rangeOf = (place, ends) => {
    const link = data.links[place];
    const percent = link && link.kind === "accuracy";
    const [low, high] = ends.map((end) => (percent ? (100 * end).toFixed(1) : shown(place, end)));
    const range = filled(words.range, { low, high });
    return percent ? filled(words.percent, { share: range }) : range;
  };
  const shownChange = (place, value) => {
    const link = data.links[place];
    if (!Number.isFinite(value)) return "\u2013";
    const text = !link ? nats(value) : link.kind === "accuracy" ? points(100 * value) : digits(value);
    return value > 0 && (link || data.signed[place]) && /[1-9]/.test(text) ? `+${text}` : text;
  };
  const three = (value) => (value < 1000 ? String(Number(value.toPrecision(3))) : Number(value.toPrecision(3)).toLocaleString("en"));
  const tokensAsText = (value) => {
    for (const [size, unit] of data.units) {
      if (Number(value.toPrecision(3)) >= size) return three(value / size) + unit;
    }
    return three(value);
  };
  const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const spelled = (ends) => (ends ? filled(words.interval, { low: number(ends[0]), high: number(ends[1]) }) : "");

  const set = (cell, text, value) => {
    cell.textContent = text;
    cell.dataset.value = String(value);
  };

  const asYaml = () => {
    // The last proportion takes what rounding leaves: a trainer's check of the sum must pass.
    const lines = data.domains.map((name, i) => `  ${JSON.stringify(name)}: ${Number(state.shares[i].toPrecision(12))}`);
    const model = sizeNow().name ? `a ${sizeNow().name} model and ` : "";
    return `# set by hand in the explorer, for ${model}${tokensAsText(state.tokens)} tokens; law of ${data.source}\nmixture:\n${lines.join("\n")}\n`;
  };

  const doubts = () => {
    const outside = data.domains.filter((_, i) => {
      const tried = data.tried[i];
      return tried && (state.shares[i] < tried[0] * 0.999 || state.shares[i] > tried[1] * 1.001);
    });
    const said = [];
    if (outside.length) said.push(filled(words.outside, { domains: outside.join(", ") }));
    const seen = reference(state.tokens);
    if (seen > data.observed[1] * 1.05) said.push(filled(words.beyond, { times: three(seen / data.observed[1]) }));
    if (seen < data.observed[0] / 1.05) said.push(words.before);
    if (sizeNow().note) said.push(sizeNow().note);
    return said;
  };

  const sentences = (sum, sumInterval, gain, gainInterval) => {
    if (!Number.isFinite(sum)) {
      const unknown = data.names.filter((_, place) => !Number.isFinite(predictOne(place, state.shares, state.tokens)));
      return [filled(words.unknown, { domains: unknown.join(", ") })];
    }
    const said = [];
    const ends = gainInterval && (gain >= 0 ? gainInterval : gainInterval.map((end) => -end).reverse());
    said.push(filled(gain >= 0 ? words.better : words.worse, { gain: amount(Math.abs(gain)), interval: spelled(ends) }));
    const above = sum - sumOf(predict(data.presets[0].shares, state.tokens));
    // The tolerance is in nats of the size that the mixture is for.
    const near = state.size === data.size ? data.tolerance : null;
    const tolerance = near === null ? "" : amount(near);
    if (Math.abs(above) < 5e-5) return said;
    if (above < 0) said.push(filled(words.below, { above: amount(-above) }));
    else if (near === null) said.push(filled(words.above, { above: amount(above) }));
    else said.push(filled(above <= near ? words.near : words.far, { above: amount(above), tolerance }));
    return said;
  };

  const guards = (ours, theirs) => {
    const line = at("#explorer-guards");
    if (!line) return;
    const broken = data.guards.filter((one) => brokenBy(one, valueOf(one.place, ours[one.place]), valueOf(one.place, theirs[one.place])));
    line.dataset.broken = JSON.stringify(broken.map((one) => data.guards.indexOf(one)));
    line.classList.toggle("alert", broken.length > 0);
    const text = filled(words.guards, { kept: data.guards.length - broken.length, all: data.guards.length });
    line.textContent = [text, ...(broken.length ? [filled(words.broken, { guards: broken.map((one) => one.text).join(", ") })] : [])].join(words.gap);
  };

  const show = () => {
    rows.forEach((row, i) => {
      const share = state.shares[i];
      if (document.activeElement !== row.number) row.number.value = (100 * share).toFixed(2);
      row.slider.value = share;
      row.slider.setAttribute("aria-valuetext", filled(words.percent, { share: (100 * share).toFixed(2) }));
    });
    volume.value = Math.log10(state.tokens);
    volume.setAttribute("aria-valuetext", tokensAsText(state.tokens));
    set(at("#volume-text"), tokensAsText(state.tokens), state.tokens);
    const ours = predict(state.shares, state.tokens);
    const theirs = predict(data.reference, state.tokens);
    const oursDrawn = data.replicates ? data.targets.map((_, place) => predictDrawn(place, state.shares, state.tokens)) : null;
    const theirsDrawn = data.replicates ? data.targets.map((_, place) => predictDrawn(place, data.reference, state.tokens)) : null;
    data.targets.forEach((domain, place) => {
      const row = domain < 0 ? outside.get(place) : rows[domain];
      const [value, reference] = [valueOf(place, ours[place]), valueOf(place, theirs[place])];
      set(row.loss, shown(place, value), value);
      set(row.change, shownChange(place, value - reference), value - reference);
      const ends = oursDrawn && valuesOf(place, intervalOf(place, ours[place], oursDrawn[place]));
      row.interval.textContent = ends && Number.isFinite(ends[0]) ? rangeOf(place, ends) : "\u2013";
      row.interval.dataset.low = ends ? ends[0] : "";
      row.interval.dataset.high = ends ? ends[1] : "";
    });
    const sum = sumOf(ours);
    const gain = sumOf(theirs) - sum;
    let sumInterval = null;
    let gainInterval = null;
    if (oursDrawn) {
      const mine = sumsDrawn(oursDrawn);
      const gains = sumsDrawn(theirsDrawn).map((value, b) => value - mine[b]);
      const terms = ours.map((loss, place) => (data.weights[place] > 0 ? data.weights[place] * loss : 0));
      sumInterval = around(sum, mine, ofLoss(sizeNow().sure.sum, state.tokens, terms));
      gainInterval = ofGain(gain, gains);
    }
    set(at("#sum"), data.linked ? "" : nats(sum), sum);
    set(at("#gain"), data.linked ? "" : nats(-gain), -gain);
    guards(ours, theirs);
    at("#gain").dataset.low = gainInterval ? gainInterval[0] : "";
    at("#gain").dataset.high = gainInterval ? gainInterval[1] : "";
    at("#explorer-answer").textContent = sentences(sum, sumInterval, gain, gainInterval).join(words.gap);
    const said = doubts();
    at("#explorer-doubts").textContent = said.join(words.gap);
    at("#explorer-doubts").hidden = !said.length;
    yaml.value = asYaml();
    at("#copied").textContent = "";
  };

  // A frame for each change is enough: sliders fire faster than a large sweep is computed.
  let waiting = false;
  const showSoon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; show(); });
  };

  const move = (index, wanted) => {
    const held = rows.reduce((sum, row, i) => sum + (row.hold.checked && i !== index ? state.shares[i] : 0), 0);
    const free = rows.map((row, i) => i).filter((i) => i !== index && !rows[i].hold.checked);
    const share = free.length ? Math.min(Math.max(wanted, 0), Math.max(1 - held, 0)) : 1 - held;
    const rest = free.reduce((sum, i) => sum + state.shares[i], 0);
    const left = Math.max(1 - held - share, 0);
    free.forEach((i) => { state.shares[i] = rest > 0 ? (state.shares[i] * left) / rest : left / free.length; });
    state.shares[index] = share;
    preset.value = "";
    showSoon();
  };

  rows.forEach((row, i) => {
    row.slider.addEventListener("input", () => move(i, Number(row.slider.value)));
    row.number.addEventListener("change", () => {
      if (row.number.value !== "" && Number.isFinite(Number(row.number.value))) move(i, Number(row.number.value) / 100);
      else showSoon();
    });
    row.number.addEventListener("blur", showSoon);
  });
  volume.addEventListener("input", () => {
    state.tokens = 10 ** Number(volume.value);
    showSoon();
  });
  preset.addEventListener("change", () => {
    if (preset.value === "") return;
    state.shares = [...data.presets[Number(preset.value)].shares];
    showSoon();
  });
  // At another size the same progress is another number of tokens.
  const resize = (place) => {
    const before = sizeNow().ratio;
    state.size = place;
    state.tokens *= sizeNow().ratio / before;
    const far = Math.max(data.tokens, data.observed[1]);
    volume.min = Math.log10(Math.min(data.observed[0], data.tokens) * sizeNow().ratio);
    volume.max = Math.log10(far * 10 * sizeNow().ratio);
  };
  if (size) {
    data.sizes.forEach((one, i) => size.add(new Option(one.name, String(i))));
    size.value = String(data.size);
    size.addEventListener("change", () => {
      resize(Number(size.value));
      showSoon();
    });
  }
  at("#reset").addEventListener("click", () => {
    state.shares = [...data.presets[0].shares];
    resize(data.size);
    state.tokens = data.tokens;
    if (size) size.value = String(data.size);
    rows.forEach((row) => { row.hold.checked = false; });
    preset.value = "0";
    show();
  });
  at("#copy").addEventListener("click", async () => {
    // In a sandboxed frame the clipboard is closed to scripts: then the text is selected, and copied by hand.
    let done = false;
    try {
      await navigator.clipboard.writeText(yaml.value);
      done = true;
    } catch {
      at("details").open = true;
      yaml.focus();
      yaml.select();
      done = document.execCommand("copy");
    }
    at("#copied").textContent = done ? words.copied : words.selected;
  });

  data.presets.forEach((one, i) => preset.add(new Option(one.name, String(i))));
  resize(data.size);
  preset.value = "0";
  root.hidden = false;
  show();
  performance.measure("explorer", { start: begun });
})();
