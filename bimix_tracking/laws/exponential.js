// log L of the exponential law, from theta = (log c, t_1 ... t_k, log beta, logit p)
(t, at, r, own, logU) => {
  let slope = 0;
  for (let j = 0; j < count; j++) slope += t[at + 1 + j] * r[j];
  const logit = t[at + 2 + count];
  const falling = -logAddExp(0, -logit) - Math.exp(t[at + 1 + count]) * logU;
  return logAddExp(t[at], slope) + logAddExp(falling, -logAddExp(0, logit));
}
