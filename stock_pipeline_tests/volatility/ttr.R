# Rscript ttr.R bars.csv.gz ttr.csv.gz: historical volatility by TTR of some bars, for windows of 30, 60 and 1,440.
library(TTR)
paths <- commandArgs(trailingOnly = TRUE)
bars <- read.csv(paths[1])
prices <- as.matrix(bars[, c("open", "high", "low", "close")])
colnames(prices) <- c("Open", "High", "Low", "Close")

measures <- function(n) {
  estimate <- function(kind) volatility(prices, n = n, calc = kind, N = 525600)
  true_range <- ATR(prices[, c("High", "Low", "Close")], n = 14)[, "tr"]
  found <- data.frame(
    bars = n,
    minute = bars$minute,
    close_to_close = estimate("close"),
    parkinson = estimate("parkinson"),
    garman_klass = estimate("garman.klass"),
    rogers_satchell = estimate("rogers.satchell"),
    yang_zhang = estimate("yang.zhang"),
    atr = runMean(true_range, n - 1)
  )
  rows <- seq_len(nrow(found))
  found[rows %% 20 == 0 | rows %in% c(n - 1, n, n + 1, nrow(found)), ]
}

result <- do.call(rbind, lapply(c(30, 60, 1440), measures))
measured <- setdiff(names(result), c("bars", "minute"))
result[measured] <- lapply(result[measured], function(x) ifelse(is.na(x), "", sprintf("%.17g", x)))
write.csv(result, gzfile(paths[2]), row.names = FALSE, quote = FALSE)
