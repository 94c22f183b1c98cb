// log L of BiMix, from theta = (log beta, log b, log c, alpha)
(t, at, r, own, logU, floor) =>
  power(t[at], t[at + 1], t[at + 2], logU) - t[at + 3] * Math.log(Math.max(r[own], floor))
