/** Longest wait of a test for one event, in ms. Only a broken product reaches it; a busy machine must not. */
export const patienceMs = 60_000
