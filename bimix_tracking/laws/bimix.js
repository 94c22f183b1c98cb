// log L of BiMix, from theta = (alpha, log beta, log b, log c)
(t, at, r, own, logU, floor) =>
  power(t[at + 1], t[at + 2], t[at + 3], logU) - t[at] * Math.log(Math.max(r[own], floor))
