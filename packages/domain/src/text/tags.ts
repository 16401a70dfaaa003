/** String to string, as the contract's `tags`. */
export type Tags = Readonly<Record<string, string>>

export const tagsMax = 50
export const tagKeyPattern = /^[A-Za-z0-9 _.:/=+@-]{1,128}$/
export const tagValuePattern = /^[A-Za-z0-9 _.:/=+@-]{0,256}$/
