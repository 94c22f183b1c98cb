// log L of the transfer law, from theta = (log beta, log b, log c, alpha, t_1 ... t_k)
(t, at, r, own, logU, floor) => {
  let effective = own < 0 ? floor : Math.max(r[own], floor);
  for (let j = 0; j < count; j++) effective += t[at + 4 + j] * r[j];
  return power(t[at], t[at + 1], t[at + 2], logU) - t[at + 3] * Math.log(effective);
}
