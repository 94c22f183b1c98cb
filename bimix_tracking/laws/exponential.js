// log L of the exponential law, from theta = (log beta, logit p, log c, t_1 ... t_k)
(t, at, r, own, logU) => {
  let slope = 0;
  for (let j = 0; j < count; j++) slope += t[at + 3 + j] * r[j];
  const logit = t[at + 1];
  const falling = -logAddExp(0, -logit) - Math.exp(t[at]) * logU;
  return logAddExp(t[at + 2], slope) + logAddExp(falling, -logAddExp(0, logit));
}
