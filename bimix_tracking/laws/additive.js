// log L of the additive law, from theta = (log E, log beta, log b, log C, t_1 ... t_k, log gamma_1 ... log gamma_k)
(t, at, r, own, logU) => {
  let terms = 0;
  for (let j = 0; j < count; j++) {
    const share = j === own ? Math.max(r[j], 1e-6) : r[j];
    if (share > 0) terms += (t[at + 4 + j] + (j === own ? 1 : 0)) * Math.exp(Math.exp(t[at + 4 + count + j]) * Math.log(share));
  }
  const value = Math.exp(-t[at + 3]) / Math.max(terms, 1e-12);
  return Math.log(Math.exp(t[at]) + value + Math.exp(t[at + 2] - Math.exp(t[at + 1]) * logU));
}
