// log L of the separable law, from theta = (log beta, log b, log E, log alpha, log A)
(t, at, r, own, logU, floor) => {
  const mixture = Math.exp(t[at + 4] - Math.exp(t[at + 3]) * Math.log(Math.max(r[own], floor)));
  return Math.log(mixture + Math.exp(t[at + 2]) + Math.exp(t[at + 1] - Math.exp(t[at]) * logU));
}
