export interface Answer {
  readonly status: number
  readonly body?: string
  /** The process ends once this was sent. */
  readonly exits?: boolean
}

export const done: Answer = { status: 204 }
