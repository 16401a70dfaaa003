/** Of the API's description and of what serves it. */
export const apiVersion = "0.1.0"
