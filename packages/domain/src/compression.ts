export const algorithms = ["zstd", "lz4"] as const
export type Algorithm = (typeof algorithms)[number]

/** As in the contract: `algorithm` and `level` mean nothing while `enabled` is false. */
export interface CompressionConfig {
  readonly enabled: boolean
  readonly algorithm?: Algorithm | undefined
  readonly level?: number | undefined
}

/** A config with every default filled in. */
export interface EffectiveCompression {
  readonly enabled: true
  readonly algorithm: Algorithm
  readonly level: number
}

const compressionLevels: Readonly<Record<Algorithm, { min: number; max: number; default: number }>> = {
  zstd: { min: 1, max: 19, default: 1 },
  lz4: { min: 0, max: 9, default: 0 },
}

/**
 * The contract's sentence for a level outside its algorithm's range, or undefined when the config is in
 * order.
 */
export function compressionMistake(config: CompressionConfig): string | undefined {
  const algorithm = config.algorithm ?? "zstd"
  const { min, max } = compressionLevels[algorithm]
  const { level } = config
  if (level === undefined || (level >= min && level <= max)) return undefined
  return `level must be between ${min} and ${max} for ${algorithm}, got ${level}`
}

export function defaultLevel(algorithm: Algorithm): number {
  return compressionLevels[algorithm].default
}

/**
 * The first config that says anything decides, in the order request, instance, server; a config that says
 * `enabled: false` ends the search. Undefined: do not compress.
 */
export function effectiveCompression(
  ...configs: readonly (CompressionConfig | null | undefined)[]
): EffectiveCompression | undefined {
  const config = configs.find((candidate) => candidate !== null && candidate !== undefined)
  return config?.enabled ? compressionOf(config) : undefined
}

/** Fills in the defaults. */
export function compressionOf({
  algorithm = "zstd",
  level = defaultLevel(algorithm),
}: Pick<CompressionConfig, "algorithm" | "level">): EffectiveCompression {
  return { enabled: true, algorithm, level }
}
